"""What compression costs: a model at several settings, its outputs, its pictures and its layers."""
