"""Fewer bits per weight of a Core ML package, with the damage measured."""
