"""Trains the demo checkpoint that ships inside sdc."""
