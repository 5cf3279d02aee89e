"""Exact attention rewrites for any Transformer, in torch."""
