"""One network that steers: what it adds to the UNet at an evaluation.

Legend: n rows of an evaluation, C channels, h w height and width of the latent or of a residual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_runtime import (
    ADAPTER_RESIDUAL,
    RESIDUAL,
    BundleComponent,
    Evaluation,
    LoadedModel,
    PortSpec,
    predict_rows,
)

from sd_controlnet.control import Control

Float: TypeAlias = npt.NDArray[np.float32]
Residuals: TypeAlias = Mapping[str, Float]

#: The input by which a union ControlNet is told which kind of hint it is given.
KIND_OF_HINT: Final = "control_type"

#: And for several hints at once: the kind of each, and how strongly each counts.
KINDS_OF_HINTS: Final = "control_type_idx"
SCALES_OF_HINTS: Final = "conditioning_scale"
_ATTENDED: Final = "encoder_hidden_states"

#: Guess mode weighs the residuals from a tenth up. Source: ``ControlNetModel.forward`` in diffusers.
_FINEST: Final = -1.0


@dataclass(frozen=True, slots=True)
class Steerer:
    """A network of the bundle with its hint (1, C, H, W), and what masks its residuals, by their size (h, w).

    ``load`` gives the network for so many tokens (None where it sees none), ``forget`` lets go of it where
    memory is to be saved.
    """

    hint_port: ClassVar[str]
    beginning: ClassVar[str]  # of the names of what it returns
    option: ClassVar[str]  # of ``sdc convert``, for a UNet that takes these

    control: Control
    component: BundleComponent
    load: Callable[[int | None], LoadedModel]
    forget: Callable[[], None]
    hint: Float
    masks: Mapping[tuple[int, ...], Float]
    #: Of a union ControlNet for several hints at once: those beside ``control`` and its hint.
    beside: tuple[tuple[Control, Float], ...] = ()

    def residuals(self, evaluation: Evaluation) -> Residuals:
        """What it adds, (n, C, h, w) each, scaled and masked."""
        raise NotImplementedError

    def outputs(self) -> list[str]:
        """The names of what it returns."""
        return [port.name for port in self.component.outputs]

    def scaled(self, values: Float, scale: float) -> Float:
        """``values`` with a scale, where the mask is."""
        mask = self.masks.get(values.shape[2:])
        weight = np.float32(scale) if mask is None else np.float32(scale) * mask
        result: Float = values * weight
        return result


@dataclass(frozen=True, slots=True)
class ControlNetSteerer(Steerer):
    """A ControlNet, which runs at each evaluation that it takes part in."""

    hint_port: ClassVar[str] = "controlnet_cond"
    beginning: ClassVar[str] = RESIDUAL
    option: ClassVar[str] = "--unet-support-controlnet"

    def residuals(self, evaluation: Evaluation) -> Residuals:
        """See :class:`Steerer`; zeros for rows that it does not see."""
        seen = np.array([not (self._guesses and negative) for negative in evaluation.is_negative])
        raw = self._predicted(evaluation, np.flatnonzero(seen))
        return {
            name: self._placed(self.scaled(values, scale), seen)
            for (name, values), scale in zip(raw.items(), self._scales(len(raw)), strict=True)
        }

    @property
    def _guesses(self) -> bool:
        """As diffusers' pipelines decide it."""
        return self.control.guess_mode or is_pooled(self.component.outputs)

    def _predicted(self, evaluation: Evaluation, rows: npt.NDArray[np.intp]) -> Residuals:
        ports = {port.name: port for port in self.component.inputs}
        given = {name: evaluation.inputs[name][rows] for name in ports if name in evaluation.inputs}
        # a UNet for inpainting sees more channels, which follow the latent's
        given["sample"] = given["sample"][:, : ports["sample"].shape[1]]
        fixed = self._hints(ports) if KIND_OF_HINT in ports else {self.hint_port: self.hint}
        given |= {name: np.repeat(values, len(rows), axis=0) for name, values in fixed.items()}
        tokens = given[_ATTENDED].shape[-1] if _ATTENDED in given else None
        return predict_rows(self.load(tokens), self.outputs(), given, {})

    def _hints(self, ports: Mapping[str, PortSpec]) -> dict[str, Float]:
        """Hints and their kinds, one row of each. One for which there is no hint has the scale 0."""
        count = ports[KIND_OF_HINT].shape[1]
        hints = [(self.control, self.hint), *self.beside]
        kinds = np.zeros((hint_count(ports), count), np.float32)
        for number, (control, _) in enumerate(hints):
            kinds[number, control.mode] = 1
        given = {KIND_OF_HINT: kinds.max(axis=0)[None], self.hint_port: self.hint}
        if KINDS_OF_HINTS in ports:
            scales = np.zeros((1, len(kinds)), np.float32)
            # of one hint alone, what it adds is scaled instead, as in diffusers
            scales[0, : len(hints)] = [control.scale for control, _ in hints] if self.beside else 1.0
            given |= {KINDS_OF_HINTS: kinds[None], SCALES_OF_HINTS: scales}
        for number in range(1, len(kinds)):
            filled = number < len(hints)
            given[f"{self.hint_port}_{number}"] = hints[number][1] if filled else np.zeros_like(self.hint)
        return given

    def _scales(self, count: int) -> Sequence[float]:
        scale = 1.0 if self.beside else float(self.control.scale)
        if not self.control.guess_mode or is_pooled(self.component.outputs):
            return [scale] * count
        return [scale * float(weight) for weight in np.logspace(_FINEST, 0, count)]

    @staticmethod
    def _placed(values: Float, seen: npt.NDArray[np.bool_]) -> Float:
        placed = np.zeros((len(seen), *values.shape[1:]), np.float32)
        placed[seen] = values
        return placed


@dataclass(frozen=True, slots=True)
class AdapterSteerer(Steerer):
    """A T2I-Adapter, whose features follow from the hint alone: it runs once."""

    hint_port: ClassVar[str] = "input"
    beginning: ClassVar[str] = ADAPTER_RESIDUAL
    option: ClassVar[str] = "--unet-support-t2i-adapter"

    _features: dict[str, Float] = field(default_factory=dict)

    def residuals(self, evaluation: Evaluation) -> Residuals:
        """See :class:`Steerer`; guess mode leaves out the rows that guidance moves away from."""
        if not self._features:
            features = self.load(None).predict_all(self.outputs(), **{self.hint_port: self.hint})
            self._features.update(
                {name: self.scaled(values, self.control.scale) for name, values in features.items()}
            )
            self.forget()
        seen = [not (self.control.guess_mode and negative) for negative in evaluation.is_negative]
        weights = np.array(seen, np.float32).reshape(-1, 1, 1, 1)
        return {name: values * weights for name, values in self._features.items()}


#: By the role of their component.
STEERERS: Final[Mapping[str, type[Steerer]]] = {
    "controlnet": ControlNetSteerer,
    "t2i_adapter": AdapterSteerer,
}


def hint_count(ports: Mapping[str, PortSpec]) -> int:
    """How many hints a ControlNet with these inputs is given at once."""
    return ports[KINDS_OF_HINTS].shape[1] if KINDS_OF_HINTS in ports else 1


def is_pooled(ports: Sequence[PortSpec]) -> bool:
    """Whether these are means over the whole picture, as a ControlNet for shuffled hints returns."""
    return all(port.shape[2:] == (1, 1) for port in ports)
