"""Valid models in both forms, and how a few bytes of a fuzzer damage them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_TESTS = Path(__file__).resolve().parent.parent / "packages" / "sd-mil" / "tests"
sys.path.insert(0, str(_TESTS))

import model_damage  # noqa: E402
from sd_mil.ir import limits  # noqa: E402

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
        return model_damage.outcome(self._seeds, choices, data)
