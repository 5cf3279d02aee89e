"""From a checkpoint and options to a bundle: plan, precision, cache, programs, packages."""
