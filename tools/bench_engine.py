"""Seconds and memory of one step of an SD 1.5-sized UNet on the portable engine, beside diffusers on torch.

    uv run python tools/bench_engine.py [--keep FOLDER] [--rounds 3] [--packages ...] [--precisions ...]

The checkpoint has random weights in fp16; batch 2, 64x64 latents. Every case runs in a process of its own,
case after case, ``--rounds`` times over, so that what else the machine does falls on all alike; the best of
each is printed. "First load" has an empty cache, "load" is the one after it, both with imports; "step" is the
best of ``--steps``; "peak" is the largest resident memory of the whole process; "dB" is the output's fidelity
to that of torch in fp32. "6-bit" has palettized weights, "8-bit" has int8 weights and activations.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apart
import numpy as np
import results

PACKAGES = ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "6-bit", "8-bit", "torch")

#: Latent size and text width; ``tiny`` is there to try this programme itself.
SIZES = {"sd15": (64, 768), "tiny": (8, 32)}


def sample_inputs(model: str) -> dict[str, Any]:
    """The same for every case."""
    rng, (size, width) = np.random.default_rng(0), SIZES[model]
    shapes = {
        "sample": (2, 4, size, size),
        "timestep": (2,),
        "encoder_hidden_states": (2, width, 1, 77),
    }
    arrays = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}
    arrays["timestep"][:] = 500
    return arrays


def run_case(options: argparse.Namespace) -> dict[str, float]:
    """Load and step in this process."""
    arrays = sample_inputs(options.model)
    began = time.perf_counter()
    load = load_torch if options.case == "torch" else load_package
    step = load(options.folder, options.precision, arrays)
    loaded = time.perf_counter()
    seconds = []
    for _ in range(options.steps):
        start = time.perf_counter()
        result = step()
        seconds.append(time.perf_counter() - start)
    np.save(options.output, result)
    return {"load": loaded - began, "step": min(seconds)}


def load_package(path: Path, precision: Any, arrays: dict[str, Any]) -> Callable[[], Any]:
    """A step of an .mlpackage."""
    from sd_mil import MLModel

    model = MLModel(path, precision=precision)
    given = {name: arrays[name].astype(port.dtype) for name, port in model.inputs.items()}
    return lambda: model.predict(given)["noise_pred"].astype(np.float32)


def load_torch(path: Path, precision: str, arrays: dict[str, Any]) -> Callable[[], Any]:
    """A step of diffusers' own UNet."""
    import torch
    from diffusers import UNet2DConditionModel

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    unet = UNet2DConditionModel.from_pretrained(path, subfolder="unet", variant="fp16", torch_dtype=dtype)
    unet.eval()
    sample, timestep = (torch.from_numpy(arrays[name]).to(dtype) for name in ("sample", "timestep"))
    states = torch.from_numpy(arrays["encoder_hidden_states"][:, :, 0].transpose(0, 2, 1)).to(dtype)

    def step() -> Any:
        with torch.inference_mode():
            return unet(sample, timestep, states, return_dict=False)[0].float().numpy()

    return step


def measure(case: tuple[str, Path, str], steps: int, cache: Path, model: str) -> dict[str, float]:
    """One case in a process of its own: seconds to load and to step, and its peak memory in GB."""
    package, folder, precision = case
    arguments = ["--case", package, "--folder", folder, "--model", model, "--precision", precision]
    arguments += ["--steps", steps, "--output", output_of(case, cache)]
    measured = apart.python(__file__, *arguments, environment={"SD_MIL_CACHE": str(cache)})
    result: dict[str, float] = json.loads(measured.printed.splitlines()[-1])
    return {**result, "peak": measured.peak}


def output_of(case: tuple[str, Path, str], cache: Path) -> Path:
    """Where a case leaves its output."""
    return cache / f"{case[0]}-{case[2]}.npy"


def prepare(folder: Path, packages: list[str], model: str) -> dict[str, Path]:
    """Make the checkpoint and the packages that are not there yet."""
    checkpoint = folder / f"{model}-sized"
    if not checkpoint.exists():
        place = f"Path({str(checkpoint)!r})"
        call(f"import bench_checkpoint; bench_checkpoint.write_checkpoint({model!r}, {place})")
    paths = {"torch": checkpoint}
    for name in packages:
        if name not in ("torch", "6-bit", "8-bit"):
            paths[name] = converted(checkpoint, folder / name, name)
    quantised = f"quantise(source, target, sample_inputs({model!r}))"
    makers = {"6-bit": "palettize(source, target)", "8-bit": quantised}
    for name in makers.keys() & set(packages):
        source = converted(checkpoint, folder / "SPLIT_EINSUM", "SPLIT_EINSUM")
        paths[name] = folder / name / source.name
        if not paths[name].exists():
            paths[name].parent.mkdir(exist_ok=True)
            names = f"source, target = Path({str(source)!r}), Path({str(paths[name])!r}); "
            call(
                names
                + f"from bench_engine import sample_inputs; from bench_packages import *; {makers[name]}"
            )
    return paths


def call(code: str) -> None:
    """Run in another process: Linux counts a parent's peak memory as that of the children it starts."""
    paths = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
    apart.python("-c", paths + code)


def converted(checkpoint: Path, bundle: Path, attention: str) -> Path:
    """The UNet's package."""
    if not bundle.exists():
        chosen = ["--components", "unet", "--attention-implementation", attention]
        apart.python("-m", "sdc.cli", "convert", checkpoint, "-o", bundle, *chosen)
    (package,) = bundle.glob("*_unet.mlpackage")
    return package


def compare(paths: dict[str, Path], options: argparse.Namespace) -> None:
    """Measure every case, and print the table."""
    cases = [(name, paths[name], precision) for precision in options.precisions for name in options.packages]
    first: dict[Any, dict[str, float]] = {}
    best: dict[Any, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch)
        for case in cases:
            for entry in cache.glob("*.weights"):
                entry.unlink()
            first[case] = measure(case, 1, cache, options.model)
            best[case] = better(measure(case, options.steps, cache, options.model), first[case])
        for _ in range(options.rounds - 1):
            for case in cases:
                best[case] = better(measure(case, options.steps, cache, options.model), best[case])
        print_table(cases, first, best, cache)
    if options.json:
        rows = [side(name, precision, best[name, path, precision]) for name, path, precision in cases]
        what = "One step of SD 1.5's UNet, batch 2" if options.model == "sd15" else "One step, tiny"
        results.write(results.measured_here(what, rows, options.note), options.json)


def side(package: str, precision: str, found: dict[str, float]) -> results.Row:
    """One side of the comparison, as a figure has it."""
    name = "diffusers on torch" if package == "torch" else f"portable engine, {package}"
    return results.Row(
        f"{name}, {precision}", round(found["step"], 3), round(found["peak"], 3), package == "torch"
    )


def better(found: dict[str, float], known: dict[str, float]) -> dict[str, float]:
    """The shorter times and the larger memory of two measurements."""
    return {name: (max if name == "peak" else min)(found[name], known[name]) for name in found}


def print_table(cases: list[Any], first: dict[Any, Any], best: dict[Any, Any], cache: Path) -> None:
    """One line a case; ratios and fidelity where torch was measured, too."""
    from sd_mil import psnr

    peers = {case[2]: case for case in cases if case[0] == "torch"}
    exact = np.load(output_of(peers["fp32"], cache)) if "fp32" in peers else None
    print(f"{'':24}{'first load':>12}{'load':>8}{'step':>8}{'peak GB':>10}{'torch / step':>14}{'dB':>8}")
    for case in cases:
        row = best[case]
        ratio = f"{best[peers[case[2]]]['step'] / row['step']:.2f}" if case[2] in peers else ""
        fidelity = "" if exact is None else f"{psnr(exact, np.load(output_of(case, cache))):.1f}"
        print(
            f"{case[0] + ' ' + case[2]:24}{first[case]['load']:12.1f}{row['load']:8.1f}"
            f"{row['step']:8.2f}{row['peak']:10.2f}{ratio:>14}{fidelity:>8}"
        )


def main() -> None:
    """Prepare, measure, print; or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="make the checkpoint and the packages here, and leave them")
    parser.add_argument("--model", choices=SIZES, default="sd15")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--note", default="", help="what is to be known of them, in the file")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(prepare(folder, options.packages, options.model), options)


if __name__ == "__main__":
    main()
