"""What executes programs. :mod:`sd_mil.engines.protocol` says what an engine is."""
