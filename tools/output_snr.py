"""How far the UNets of compressed bundles are from a reference's, in dB, along pictures that it draws.

    uv run python tools/output_snr.py REFERENCE BUNDLE ...

The reference draws the captions that the demo checkpoint never saw, from seeds that nothing else uses; what
its UNet was given is given to each bundle's. Signal to noise is that of all outputs together, with and
without the caption.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle, BundleComponent, open_bundle
from sd_runtime import Model, Pipeline, open_model
from sdc.demo.captions import unseen_captions

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

FIRST_SEED = 70_000


class Recorder:
    """A model that remembers what it was given and what it said."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.calls: list[tuple[Arrays, Arrays]] = []

    def predict(self, inputs: Arrays, /) -> Arrays:
        """Run once."""
        outputs = self.model.predict(inputs)
        self.calls.append(({name: value.copy() for name, value in inputs.items()}, outputs))
        return outputs


def record(bundle: Bundle, captions: Sequence[str], steps: int) -> list[tuple[Arrays, Arrays]]:
    """Inputs and outputs of the denoiser while the captions are drawn."""
    recorder = Recorder(open_denoiser(bundle))

    def model_of(component: BundleComponent) -> Model:
        return recorder if component.role == "denoiser" else open_model(bundle, component)

    pipeline = Pipeline(bundle, model_of)
    for index, caption in enumerate(captions):
        pipeline.generate(caption, seed=FIRST_SEED + index, num_inference_steps=steps)
    return recorder.calls


def open_denoiser(bundle: Bundle) -> Model:
    """The UNet of a bundle, in the portable engine."""
    return open_model(bundle, bundle.at_size().only("denoiser"), engine="portable")


def signal_to_noise(model: Model, calls: Sequence[tuple[Arrays, Arrays]]) -> float:
    """In dB, over all elements of all outputs."""
    signal = noise = 0.0
    for inputs, outputs in calls:
        for name, value in model.predict(inputs).items():
            true, got = (np.asarray(array, np.float64) for array in (outputs[name], value))
            signal += float(np.square(true).sum())
            noise += float(np.square(true - got).sum())
    return float(10 * np.log10(signal / noise)) if noise else float("inf")


def main() -> None:
    """Print one line for each bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--captions", type=int, default=22, help="how many of the unseen ones to draw")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    captions = [str(caption) for caption in unseen_captions()[: options.captions]]
    calls = record(open_bundle(options.reference), captions, options.steps)
    for path in options.bundles:
        print(f"{path}: {signal_to_noise(open_denoiser(open_bundle(path)), calls):.2f} dB", flush=True)


if __name__ == "__main__":
    main()
