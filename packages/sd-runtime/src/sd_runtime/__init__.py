"""Stable Diffusion bundles to images, without torch."""
