"""Seconds and memory of one step of an SD 1.5-sized UNet on the portable engine, beside diffusers on torch.

    uv run python tools/bench_engine.py [--keep FOLDER] [--rounds 3] [--packages ...] [--precisions ...]

The checkpoint has random weights in fp16; batch 2, 64x64 latents. Every case runs in a process of its own,
case after case, ``--rounds`` times over, so that what else the machine does falls on all alike; the best of
each is printed. "First load" has an empty cache, "load" is the one after it, both with imports; "step" is the
best of ``--steps``; "peak" is the largest resident memory of the whole process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sd_mil import Constant, Operation

PACKAGES = ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "6-bit", "torch")
INPUTS = {
    "sample": (2, 4, 64, 64),
    "timestep": (2,),
    "encoder_hidden_states": (2, 768, 1, 77),
}


def run_case(package: str, folder: Path, precision: str, steps: int) -> dict[str, float]:
    """Load and step in this process."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in INPUTS.items()}
    arrays["timestep"][:] = 500
    began = time.perf_counter()
    step = (load_torch if package == "torch" else load_package)(folder, precision, arrays)
    loaded = time.perf_counter()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"load": loaded - began, "step": min(seconds)}


def load_package(path: Path, precision: Any, arrays: dict[str, Any]) -> Callable[[], object]:
    """A step of an .mlpackage."""
    from sd_mil import MLModel

    model = MLModel(path, precision=precision)
    given = {name: arrays[name].astype(port.dtype) for name, port in model.inputs.items()}
    return lambda: model.predict(given)


def load_torch(path: Path, precision: str, arrays: dict[str, Any]) -> Callable[[], object]:
    """A step of diffusers' own UNet."""
    import torch
    from diffusers import UNet2DConditionModel

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    unet = UNet2DConditionModel.from_pretrained(path, subfolder="unet", variant="fp16", torch_dtype=dtype)
    unet.eval()
    sample, timestep = (torch.from_numpy(arrays[name]).to(dtype) for name in ("sample", "timestep"))
    states = torch.from_numpy(arrays["encoder_hidden_states"][:, :, 0].transpose(0, 2, 1)).to(dtype)

    def step() -> object:
        with torch.inference_mode():
            return unet(sample, timestep, states, return_dict=False)[0]

    return step


def measure(case: tuple[str, Path, str], steps: int, cache: Path) -> dict[str, float]:
    """One case in a process of its own: seconds to load and to step, and its peak memory in GB."""
    package, folder, precision = case
    command = [sys.executable, __file__, "--case", package, "--folder", str(folder)]
    command += ["--precision", precision, "--steps", str(steps)]
    environment = {**os.environ, "SD_MIL_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return {**result, "peak": usage.ru_maxrss * unit / 1e9}


def prepare(folder: Path, packages: list[str]) -> dict[str, Path]:
    """Make the checkpoint and the packages that are not there yet."""
    checkpoint = folder / "sd15-sized"
    if not checkpoint.exists():
        call(f"bench_convert.write_checkpoint(Path({str(checkpoint)!r}))")
    paths = {"torch": checkpoint}
    for name in packages:
        if name not in ("torch", "6-bit"):
            paths[name] = converted(checkpoint, folder / name, name)
    if "6-bit" in packages:
        source = converted(checkpoint, folder / "SPLIT_EINSUM", "SPLIT_EINSUM")
        paths["6-bit"] = folder / "6-bit" / source.name
        if not paths["6-bit"].exists():
            paths["6-bit"].parent.mkdir(exist_ok=True)
            call(f"bench_engine.palettize(Path({str(source)!r}), Path({str(paths['6-bit'])!r}))")
    return paths


def call(expression: str) -> None:
    """Evaluate in another process: Linux counts a parent's peak memory as that of the children it starts."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
    subprocess.run(
        [sys.executable, "-c", code + f"import bench_convert, bench_engine; {expression}"], check=True
    )


def converted(checkpoint: Path, bundle: Path, attention: str) -> Path:
    """The UNet's package."""
    if not bundle.exists():
        command = [sys.executable, "-m", "sdc.cli", "convert", str(checkpoint), "-o", str(bundle)]
        command += ["--components", "unet", "--attention-implementation", attention]
        subprocess.run(command, check=True)
    (package,) = bundle.glob("*_unet.mlpackage")
    return package


def palettize(source: Path, target: Path) -> None:
    """The package with 64 equidistant values for each weight: as large and as fast as with better ones."""
    from sd_mil import read_package, write_package

    package = read_package(source)
    main = package.program.main
    operations = tuple(_palettized(operation) for operation in main.body.operations)
    function = dataclasses.replace(main, body=dataclasses.replace(main.body, operations=operations))
    program = dataclasses.replace(package.program, functions={main.name: function})
    write_package(target, program, package.description)


def _palettized(operation: Operation) -> Operation:
    from sd_mil import Constant, TensorType

    constant = operation.attributes.get("val")
    weight = constant.value if operation.type == "const" and constant is not None else None
    if not isinstance(weight, np.ndarray) or weight.dtype != np.float16 or weight.ndim < 2 or weight.size % 4:
        return operation

    def stored(array: Any, dtype: str) -> Constant:
        return Constant(TensorType(dtype, array.shape), array, stored=array.nbytes)

    table = np.linspace(weight.min(), weight.max(), 64).astype(np.float16)
    nearest = (weight.astype(np.float32) - table[0]) / max(float(table[-1] - table[0]), 1e-6) * 63
    four = np.rint(nearest).astype(np.uint32).reshape(-1, 4) << np.arange(0, 24, 6, dtype=np.uint32)
    packed = four.sum(1, dtype=np.uint32).view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1)
    attributes = {
        "name": operation.attributes["name"],
        "indices": stored(packed, "uint8"),
        "lut": stored(table, "fp16"),
        "shape": stored(np.array(weight.shape, np.uint32), "uint32"),
    }
    return dataclasses.replace(operation, type="constexpr_lut_to_dense", inputs={}, attributes=attributes)


def compare(paths: dict[str, Path], options: argparse.Namespace) -> None:
    """Measure every case, and print the table."""
    cases = [(name, paths[name], precision) for precision in options.precisions for name in options.packages]
    first: dict[Any, dict[str, float]] = {}
    best: dict[Any, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for case in cases:
            first[case] = measure(case, 1, Path(cache) / case[0] / case[2])
        for _ in range(options.rounds):
            for case in cases:
                found = measure(case, options.steps, Path(cache) / case[0] / case[2])
                known = best.setdefault(case, found)
                peak = max(known["peak"], found["peak"], first[case]["peak"])
                best[case] = {name: min(known[name], found[name]) for name in found} | {"peak": peak}
    print(f"{'':24}{'first load':>12}{'load':>8}{'step':>8}{'peak GB':>10}{'torch / step':>14}")
    for case in cases:
        row, peer = best[case], best.get(("torch", paths["torch"], case[2]))
        ratio = f"{peer['step'] / row['step']:14.2f}" if peer else ""
        print(
            f"{case[0] + ' ' + case[2]:24}{first[case]['load']:12.1f}{row['load']:8.1f}"
            f"{row['step']:8.2f}{row['peak']:10.2f}{ratio}"
        )


def main() -> None:
    """Prepare, measure, print; or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="make the checkpoint and the packages here, and leave them")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options.case, options.folder, options.precision, options.steps)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(prepare(folder, options.packages), options)


if __name__ == "__main__":
    main()
