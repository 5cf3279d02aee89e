"""What a classifier ends with."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, op


@op("classify")
def classify(
    probabilities: Array, classes: Array | tuple[str, ...]
) -> tuple[Array | str, dict[str | int, float]]:
    """The most probable label, and every label's probability."""
    labels = classes.tolist() if isinstance(classes, np.ndarray) else list(classes)
    values = probabilities.ravel().astype(np.float64).tolist()
    if len(labels) != len(values):
        raise ValueError(f"expected {len(labels)} probabilities, one for each label, got {len(values)}")
    best = labels[int(np.argmax(probabilities))]
    label = best if isinstance(best, str) else np.array(best, np.int64)
    return label, dict(zip(labels, values, strict=True))
