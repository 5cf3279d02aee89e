"""Hold Core ML models against what they should compute, in tests.

With pytest, the fixtures ``model_inputs`` and ``assert_same_outputs`` are there without an import.
"""

from sd_mil.testing.inputs import random_value, seeded_inputs
from sd_mil.testing.outputs import OutputsDifferError, assert_same_outputs

__all__ = ["OutputsDifferError", "assert_same_outputs", "random_value", "seeded_inputs"]
