"""The report on one model's compression: a frozen value that is JSON in and out.

A *candidate* is the whole model at one setting, such as 4 bits for every weight or the bits of one recipe;
its *parts* are the components that were compressed. The first candidate is the model as it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sd_bundle import ManifestError, decode, encode, parse_json

from sd_compress.errors import CompressionError

FORMAT: Final = "sd-compress-report"
VERSION: Final = 1

#: The model as it came, one scheme for all weights, or a scheme for each of them.
Kind: TypeAlias = Literal["original", "uniform", "recipe"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"


class ReportError(CompressionError):
    """A file that is no report, or a page that cannot be made of one."""


@dataclass(frozen=True, slots=True)
class OutputSnr:
    """How much of an output is left: signal to noise over all inputs.

    Units: dB; None where not a bit differs.
    """

    output: str
    snr: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """One component at one setting.

    ``summary`` says in words what was done; ``bits_per_weight`` is the average as stored, tables included;
    ``stored_bytes`` the size of the package.
    """

    component: str
    summary: str
    bits_per_weight: float
    stored_bytes: int
    outputs: tuple[OutputSnr, ...]

    def __post_init__(self) -> None:
        """Refuse sizes that no package has."""
        if self.bits_per_weight < 0:
            raise ManifestError("$.bits_per_weight", "at least 0", self.bits_per_weight)
        if self.stored_bytes < 0:
            raise ManifestError("$.stored_bytes", "at least 0", self.stored_bytes)

    @property
    def snr(self) -> float | None:
        """Of the worst output, in dB; None where every output is the same to the last bit."""
        return min((row.snr for row in self.outputs if row.snr is not None), default=None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """The model at one setting: ``pictures`` are PNG files, one for each prompt of the report, or none."""

    name: str
    kind: Kind
    method: str
    parts: tuple[Part, ...]
    pictures: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Refuse what is no picture."""
        for index, picture in enumerate(self.pictures):
            if not picture.startswith(_PNG):
                raise ManifestError(f"$.pictures[{index}]", "a PNG file", picture[:8].hex())

    @property
    def stored_bytes(self) -> int:
        """Of all parts together."""
        return sum(part.stored_bytes for part in self.parts)

    @property
    def snr(self) -> float | None:
        """Of the worst output of any part, in dB; None where not a bit differs."""
        return min((part.snr for part in self.parts if part.snr is not None), default=None)

    def keeps(self, snr: float) -> bool:
        """Whether every output has at least ``snr`` dB."""
        return self.snr is None or self.snr >= snr

    def part(self, component: str) -> Part:
        """That of ``component``.

        Raises:
            KeyError: it is not among the parts.
        """
        return {part.component: part for part in self.parts}[component]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One weight: what it is, what it takes at each candidate, and how much it hurts at each width.

    ``module`` is the part of the network it belongs to and ``op`` the type of the operation that takes it;
    ``stored`` the bytes by the candidate's name; ``sensitivity`` by the number of bits, in the unit of the
    report's :class:`Sensitivity`.
    """

    weight: str
    component: str
    module: str
    op: str
    shape: tuple[int, ...]
    elements: int
    stored: Mapping[str, int]
    sensitivity: Mapping[str, float]

    def bits(self, candidate: str) -> float | None:
        """Bits for each element at that candidate, tables included; None where it is not known."""
        if candidate not in self.stored or not self.elements:
            return None
        return 8 * self.stored[candidate] / self.elements


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What the numbers of :attr:`LayerRow.sensitivity` are.

    ``widths`` in bits, the ``unit``, a sentence about their ``meaning``, and which end of them hurts:
    ``high`` of an error, ``low`` of a signal to noise.
    """

    widths: tuple[int, ...]
    unit: str
    meaning: str
    worst: Literal["high", "low"]


@dataclass(frozen=True, slots=True)
class Environment:
    """Where the numbers come from: releases by name, the system, and the arithmetic of the engine."""

    versions: Mapping[str, str]
    system: str
    arithmetic: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page shows.

    ``wanted_snr`` is what the choice had to keep and ``chosen`` the name of the candidate, None if none does.
    ``samples`` is how many inputs each component was run on. ``peak_memory`` is in bytes.
    """

    format: Literal["sd-compress-report"]
    version: Literal[1]
    model: str
    components: tuple[str, ...]
    prompts: tuple[str, ...]
    seed: int
    num_inference_steps: int
    samples: Mapping[str, int]
    candidates: tuple[Candidate, ...]
    wanted_snr: float
    chosen: str | None
    layers: tuple[LayerRow, ...]
    sensitivity: Sensitivity | None
    environment: Environment
    seconds: float
    peak_memory: int

    def __post_init__(self) -> None:
        """Refuse a report whose parts contradict each other."""
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) != len(names):
            raise ManifestError("$.candidates", "every name once", names)
        if not self.candidates or self.candidates[0].kind != "original":
            raise ManifestError("$.candidates", "the original first", names)
        if self.chosen is not None and self.chosen not in names:
            raise ManifestError("$.chosen", f"one of {', '.join(names)}", self.chosen)
        for index, candidate in enumerate(self.candidates):
            self._check(candidate, f"$.candidates[{index}]")

    def _check(self, candidate: Candidate, where: str) -> None:
        parts = [part.component for part in candidate.parts]
        if sorted(parts) != sorted(self.components):
            raise ManifestError(f"{where}.parts", f"each of {', '.join(self.components)} once", parts)
        if len(candidate.pictures) not in (0, len(self.prompts)):
            expected = f"none, or one for each of {len(self.prompts)} prompts"
            raise ManifestError(f"{where}.pictures", expected, len(candidate.pictures))

    @property
    def original(self) -> Candidate:
        """The model as it came."""
        return self.candidates[0]

    @property
    def choice(self) -> Candidate | None:
        """The candidate that was chosen."""
        return self.candidate(self.chosen) if self.chosen is not None else None

    def candidate(self, name: str) -> Candidate:
        """The candidate of that name.

        Raises:
            KeyError: there is none.
        """
        return {candidate.name: candidate for candidate in self.candidates}[name]


def report_json(report: Report) -> str:
    """The report as JSON, pictures in base64: the inverse of :func:`read_report`."""
    return json.dumps(encode(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_report(text: str) -> Report:
    """The report in ``text``.

    Raises:
        ReportError: not JSON, another format or version, or a field that is missing, unknown or wrong.
    """
    try:
        return decode(Report, parse_json(text))
    except ManifestError as error:
        message = f"report: expected {error.expected} at {error.where}, got {error.got!r}"
        raise ReportError(message) from None
