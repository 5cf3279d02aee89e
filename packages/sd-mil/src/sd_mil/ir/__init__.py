"""An ML Program as values, and the questions that every pass and engine asks of one.

Nothing here reads a file, computes a number of a model, or knows an engine.
"""
