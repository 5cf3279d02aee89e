"""Valid models in both forms, and how a few bytes of a fuzzer damage them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sd_mil.ir import limits

_TESTS = Path(__file__).resolve().parent.parent / "packages" / "sd-mil" / "tests"
sys.path.insert(0, str(_TESTS))

model_damage: Any = importlib.import_module("model_damage")  # the tests' own, which have no types

#: Damage makes loops that do not end; they are stopped within the second that every input has.
limits.MAX_ITERATIONS = 1000


class Target:
    """Damages one of the seeds by the bytes given, and puts the result to the test."""

    def __init__(self, folder: Path) -> None:
        """The seeds are written into the folder once."""
        self._seeds = model_damage.seeds(folder)

    def run(self, data: bytes) -> str:
        """What became of it: ``ran``, or the type of the error that refused it.

        Raises:
            Exception: anything but a typed error is a finding.
        """
        choices = np.frombuffer(data.ljust(8, b"\0"), np.uint8).tolist()
        return str(model_damage.outcome(self._seeds, choices, data))
