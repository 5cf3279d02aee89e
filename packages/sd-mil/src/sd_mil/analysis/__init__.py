"""Where a model overflows, where two models part, and how far apart their outputs are."""

from sd_mil.analysis.comparison import Comparison, OutputFidelity, compare, compare_outputs
from sd_mil.analysis.divergence import ArgumentFidelity, Divergence, DivergenceReport, first_divergence
from sd_mil.analysis.overflow import Overflow, OverflowReport, overflow
from sd_mil.analysis.predictors import predictor

__all__ = [
    "ArgumentFidelity",
    "Comparison",
    "Divergence",
    "DivergenceReport",
    "OutputFidelity",
    "Overflow",
    "OverflowReport",
    "compare",
    "compare_outputs",
    "first_divergence",
    "overflow",
    "predictor",
]
