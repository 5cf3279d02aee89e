"""A bundle's networks in one engine, held against the portable one: what a Mac's owner can prove alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from sd_bundle import Bundle, BundleComponent
    from sd_convert import OutputFidelity, VerificationReport
    from sd_mil.engines import Engine
    from sd_runtime import Model

#: In the tongue of every model: what its networks are given is what they see when they draw.
_PROMPT: Final = "a red circle on a blue background"


@dataclass(slots=True)
class _Recorded:
    """The inputs and outputs of a network's first call."""

    model: Model
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, inputs: Mapping[str, npt.NDArray[np.generic]], /) -> Mapping[str, Any]:
        outputs = self.model.predict(inputs)
        if not self.inputs:
            self.inputs, self.outputs = dict(inputs), dict(outputs)
        return outputs


def verify_engine(bundle: Path, engine: Engine, *, min_psnr: float) -> VerificationReport:
    """Every network that takes part in a picture: ``engine`` against the portable engine, in fp32.

    The inputs are those of a picture's first step, which the portable engine draws. One network of ``engine``
    is in memory at a time.

    Raises:
        click.UsageError: ``engine`` is the portable one.
        sd_bundle.BundleError: the bundle is damaged; every file is held against its sha256.
        sd_mil.SdMilError: the engine cannot run a package.
    """
    from sd_convert import VerificationReport
    from sd_runtime import open_any, resolve_engine

    portable = resolve_engine("portable")
    if engine == portable:
        raise click.UsageError("expected --against CHECKPOINT, or --engine coreml or reference to prove")
    opened = open_any(bundle, None)
    opened.check_integrity()
    rows: list[OutputFidelity] = []
    arithmetic = ""
    for narrowed in _each(opened):
        for component, recorded in _recorded(narrowed, portable):
            size, form = opened.component(component.name).told_apart(component.variant)
            if (component.name, size, form) in {(row.component, row.size, row.form) for row in rows}:
                continue  # one for all forms, which is there already
            found, arithmetic = _compared(narrowed, component, recorded, engine)
            rows += (replace(row, size=size, form=form) for row in found)
    return VerificationReport(bundle, "the portable engine", min_psnr, arithmetic, tuple(rows))


def left_out(bundle: Path, report: VerificationReport) -> list[str]:
    """Components that take no part in a plain picture, and were not compared."""
    from sd_runtime import open_any

    compared = {row.component for row in report.rows}
    return [each.name for each in open_any(bundle, None).manifest.components if each.name not in compared]


def _each(bundle: Bundle) -> Iterator[Bundle]:
    """The bundle in each size and form."""
    for size in bundle.manifest.model.sizes:
        for form in bundle.forms(size.image) or (None,):
            yield bundle.at_size(size.image, form)


def _recorded(bundle: Bundle, portable: Engine) -> Iterator[tuple[BundleComponent, _Recorded]]:
    """Draw with the portable engine; the networks, with what they were given and gave."""
    from PIL import Image
    from sd_runtime import Pipeline, open_model

    models: dict[str, _Recorded] = {}

    def opened(component: BundleComponent) -> Model:
        made = _Recorded(open_model(bundle, component, engine=portable))
        return models.setdefault(component.name, made)

    pipeline = Pipeline(bundle, opened)
    model = bundle.manifest.model
    options: dict[str, Any] = {"num_inference_steps": 2}
    if bundle.components("image_encoder"):
        options["image"] = Image.linear_gradient("L").convert("RGB")
    if model.task == "inpainting":
        options["mask"] = Image.radial_gradient("L")
    pipeline.generate(_PROMPT, **options)
    pipeline.release()
    for component in bundle.manifest.components:
        if component.name in models:
            yield component, models[component.name]


def _compared(
    bundle: Bundle, component: BundleComponent, recorded: _Recorded, engine: Engine
) -> tuple[list[OutputFidelity], str]:
    """Rows, and what computed them."""
    import numpy as np
    from sd_convert import OutputFidelity
    from sd_mil import psnr
    from sd_runtime import ChunkedModel, open_model

    model = open_model(bundle, component, engine=engine)
    began = perf_counter()
    got = model.predict(recorded.inputs)
    seconds = perf_counter() - began
    rows = []
    for port in component.outputs:
        expected = np.asarray(recorded.outputs[port.name], np.float64)
        error = float(np.max(np.abs(expected - np.asarray(got[port.name], np.float64))))
        rows.append(OutputFidelity(component.name, port.name, psnr(expected, got[port.name]), error, seconds))
    one = model.models[0] if isinstance(model, ChunkedModel) else model
    return rows, str(getattr(one, "arithmetic", ""))
