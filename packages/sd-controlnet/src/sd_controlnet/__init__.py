"""ControlNet conditioning for sd-runtime."""
