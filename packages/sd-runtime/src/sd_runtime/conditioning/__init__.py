"""What the denoiser is told: prompts, pictures, sizes, and the residuals that steer it."""
