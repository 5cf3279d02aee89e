"""Stable Diffusion for Core ML, from any machine: the command line over the sd-* packages."""
