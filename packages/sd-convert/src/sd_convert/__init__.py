"""Stable Diffusion checkpoints to Core ML packages, from any machine."""
