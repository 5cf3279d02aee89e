"""The fixtures of sd-mil's pytest plugin; what they give is imported when a test asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def model_inputs() -> Callable[..., dict[str, Any]]:
    """``model_inputs(model, seed=0)``, :func:`sd_mil.testing.seeded_inputs`."""
    from sd_mil.testing import seeded_inputs

    return seeded_inputs


@pytest.fixture(scope="session")
def assert_same_outputs() -> Callable[..., Any]:
    """``assert_same_outputs(model, reference, min_psnr=35.0)``, of :mod:`sd_mil.testing`."""
    from sd_mil.testing import assert_same_outputs

    return assert_same_outputs
