"""Seconds and memory of compressing a package, beside coremltools, scheme by scheme, each in its own process.

    uv run python tools/bench_compress.py [--quick] [--schemes A,B]

The package has a few weights of a Stable Diffusion 1.5 UNet, with random elements. What importing takes is
left out on both sides; peak memory is that of the process. coremltools clusters with ``kmeans1d``; for groups
it needs scikit-learn, and where that is missing, their row has our side alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apart
import numpy as np

#: Convolutions and projections of the UNet: [out, in, height, width].
SHAPES = ((1280, 1280, 3, 3), (640, 640, 3, 3), (320, 320, 3, 3), (10240, 1280, 1, 1), (1280, 5120, 1, 1))
QUICK = ((64, 32, 3, 3), (128, 128, 1, 1))

#: By name: the target, ours as JSON, and coremltools' function, configuration and settings.
SCHEMES: dict[str, tuple[str, dict[str, Any], str, str, dict[str, Any]]] = {
    **{
        f"palette of {bits} bits": (
            "iOS16",
            {"method": "palettize", "nbits": bits},
            "palettize_weights",
            "OpPalettizerConfig",
            {"nbits": bits},
        )
        for bits in (4, 6, 8)
    },
    "palettes of 16 channels": (
        "iOS18",
        {"method": "palettize", "nbits": 4, "granularity": "per_grouped_channel", "group_size": 16},
        "palettize_weights",
        "OpPalettizerConfig",
        {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 16},
    ),
    "int8": ("iOS16", {"method": "linear"}, "linear_quantize_weights", "OpLinearQuantizerConfig", {}),
    "int4 of 32 inputs": (
        "iOS18",
        {"method": "linear", "dtype": "int4", "granularity": "per_block", "block_size": 32},
        "linear_quantize_weights",
        "OpLinearQuantizerConfig",
        {"dtype": "int4", "granularity": "per_block", "block_size": 32},
    ),
    "half pruned": (
        "iOS16",
        {"method": "prune", "sparsity": 0.5},
        "prune_weights",
        "OpMagnitudePrunerConfig",
        {"target_sparsity": 0.5},
    ),
}

_OURS = """
import json, sys, time
from sd_compress import compress_package, scheme_from_json, uniform_recipe
import sd_compress._loops
source, target, scheme = sys.argv[1:4]
chosen = scheme_from_json(json.loads(scheme))
began = time.perf_counter()
compress_package(source, target, lambda program: uniform_recipe(program, chosen))
"""
_THEIRS = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import coremltools as ct, coremltools.optimize.coreml as cto
source, target, function, config, settings = sys.argv[1:6]
chosen = cto.OptimizationConfig(getattr(cto, config)(**json.loads(settings)))
began = time.perf_counter()
getattr(cto, function)(ct.models.MLModel(source, skip_model_load=True), chosen).save(target)
"""
_MAKE = """
import json, sys
from pathlib import Path
tools, folder, target, shapes = sys.argv[1:5]
sys.path.insert(0, tools)
from bench_compress import make_package
make_package(Path(folder), target, json.loads(shapes))
"""
_REPORT = """
print(time.perf_counter() - began)
"""


def package_of(folder: Path, target: str) -> Path:
    """Where the package for a target is."""
    return folder / f"{target}.mlpackage"


def make_package(folder: Path, target: str, shapes: Iterable[Sequence[int]]) -> None:
    """A package of one convolution for each shape, side by side."""
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    random, sizes = np.random.default_rng(0), tuple(shapes)
    given = Builder.TensorSpec((1, max(shape[1] for shape in sizes), 4, 4), types.fp16)
    opset = getattr(ct.target, target)

    def branches(x: Any) -> Any:
        outputs = []
        for shape in sizes:
            part = Builder.slice_by_size(x=x, begin=[0, 0, 0, 0], size=[1, shape[1], 4, 4])
            outputs.append(Builder.conv(x=part, weight=_weight(random, shape), pad_type="same"))
        return tuple(outputs)

    program = Builder.program(input_specs=[given], opset_version=opset)(branches)
    made = ct.convert(program, minimum_deployment_target=opset, skip_model_load=True)
    made.save(str(package_of(folder, target)))


def _weight(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Elements with the spread of a layer's and heavier tails than a normal distribution's."""
    drawn = random.standard_t(6, shape) / np.sqrt(np.prod(shape[1:]))
    return np.asarray(drawn, np.float16)


def measured(code: str, *arguments: object, quiet: bool = False) -> tuple[float, float] | None:
    """Seconds of the work alone and peak MB of its process; None when it fails."""
    try:
        done = apart.python("-c", code + _REPORT, *arguments, quiet=quiet)
    except apart.ProcessError:
        return None
    return float(done.printed.splitlines()[-1]), done.peak * 1000


def row(name: str, source: Path, folder: Path) -> str:
    """One scheme, compressed by both."""
    _, ours, function, config, settings = SCHEMES[name]
    stem = name.replace(" ", "-")
    mine = measured(_OURS, source, folder / f"{stem}-ours.mlpackage", json.dumps(ours))
    if mine is None:
        raise SystemExit(f"{name}: sd-compress failed")
    theirs = measured(
        _THEIRS,
        source,
        folder / f"{stem}-theirs.mlpackage",
        function,
        config,
        json.dumps(settings),
        quiet=True,
    )
    said = f"{name:26} {mine[0]:8.2f} {mine[1]:8.0f}"
    if theirs is None:
        return f"{said}        -        -      -"
    return f"{said} {theirs[0]:8.2f} {theirs[1]:8.0f} {theirs[0] / mine[0]:5.1f}x"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small weights")
    parser.add_argument("--schemes", help=f"of {', '.join(SCHEMES)}")
    arguments = parser.parse_args()
    names = arguments.schemes.split(",") if arguments.schemes else list(SCHEMES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        targets = dict.fromkeys(SCHEMES[name][0] for name in names)
        shapes = QUICK if arguments.quick else SHAPES
        for target in targets:  # apart, for the sake of the memory that is measured
            apart.python("-c", _MAKE, Path(__file__).parent, folder, target, json.dumps(shapes), quiet=True)
        sources = {target: package_of(folder, target) for target in targets}
        print(f"{'scheme':26} {'ours s':>8} {'MB':>8} {'theirs s':>8} {'MB':>8}", flush=True)
        for name in names:
            print(row(name, sources[SCHEMES[name][0]], folder), flush=True)


if __name__ == "__main__":
    main()
