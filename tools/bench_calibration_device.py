"""How fast calibration's dear parts are on a device of torch, beside numpy, for weights of SD 1.5's sizes.

    uv run python tools/bench_calibration_device.py --device cuda

For a weight of each shape: the Hessian of what it reads, from ``--rows`` rows, then a palette whose rounding
makes up for its own errors. Prints seconds, ratios, and the ratio of both palettes' noise under the Hessian.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from sd_compress import Calibrated, Hessian, Palettize, Weight, optimal_palette
from sd_compress.calibration.devices import Device, DeviceAccumulator, check_device
from sd_compress.calibration.hessians import Accumulator
from sd_mil import Constant, TensorType

#: (outputs, inputs) of SD 1.5's projections, feed-forward layers and 3 x 3 convolutions.
SHAPES: Final = ((1280, 1280), (10240, 1280), (1280, 11520))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and its seconds."""
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def summed(accumulator: Accumulator, rows: Any, times: int) -> Hessian:
    """The Hessian of ``rows``, given ``times`` times."""
    for _ in range(times):
        accumulator.add(rows)
    return accumulator.hessian()


def compare(outputs: int, inputs: int, options: argparse.Namespace) -> str:
    """A line of the table."""
    rng = np.random.default_rng(0)
    # Neighbouring inputs agree, as those of networks do: or there is nothing to make up for.
    rows = rng.standard_normal((options.rows, inputs), np.float32).cumsum(axis=1) / np.sqrt(inputs)
    rows += 0.1 * rng.standard_normal(rows.shape, np.float32)
    values = (0.05 * rng.standard_normal((outputs, inputs))).astype(np.float16)
    constant = Constant(TensorType("fp16", values.shape), values, values.nbytes)
    weight = Weight("w", "main", "linear", "op", "weight", constant)
    device: Device = options.device
    known, here = timed(lambda: summed(Accumulator([inputs]), rows, 4))
    found, there = timed(lambda: summed(DeviceAccumulator([inputs], device), rows, 4))
    apart = np.abs(found.blocks[0] - known.blocks[0]).max() / np.abs(known.blocks[0]).max()
    scheme, noises, seconds = Palettize(options.nbits), [], []
    for where in (None, device):
        palette, spent = timed(
            partial(Calibrated({"w": known}, optimal_palette, device=where), weight, scheme)
        )
        wrong = weight.matrix().astype(np.float32) - weight.matrix(palette.decode()).astype(np.float32)
        noises.append(known.noise(wrong))
        seconds.append(spent)
    return (
        f"{outputs} x {inputs}: Hessian {here:.2f} s, {there:.2f} s on {device} ({here / there:.1f} times, "
        f"apart {apart:.0e}); palette {seconds[0]:.2f} s, {seconds[1]:.2f} s ({seconds[0] / seconds[1]:.1f} "
        f"times, noise {noises[1] / noises[0]:.4f} of numpy's)"
    )


def main() -> None:
    """Parse options, print a line for each shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--nbits", type=int, default=4)
    parser.add_argument("--shapes", nargs="+", default=[f"{o}x{i}" for o, i in SHAPES], metavar="OxI")
    options = parser.parse_args()
    check_device(options.device)
    compare(
        8, 16, argparse.Namespace(**{**vars(options), "rows": 32})
    )  # loops are compiled, the device wakes
    for shape in options.shapes:
        outputs, inputs = map(int, shape.split("x"))
        print(compare(outputs, inputs, options), flush=True)


if __name__ == "__main__":
    main()
