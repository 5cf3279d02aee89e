"""Stable Diffusion for Core ML, from any machine."""
