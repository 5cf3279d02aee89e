"""Models that predict: ports checked, images and states taken, pipelines walked."""
