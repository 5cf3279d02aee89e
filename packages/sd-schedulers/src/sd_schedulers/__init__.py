"""The mathematics of diffusion sampling, in numpy."""
