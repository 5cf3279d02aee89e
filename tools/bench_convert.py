"""Seconds and memory of a conversion at the size of SD 1.5 or SDXL, beside other converters.

    uv run python tools/bench_convert.py [--model sdxl] [--components unet] [--peer] [--keep FOLDER]

The checkpoint has random weights in fp16 (2 GB or 7 GB under the temporary folder, and as much for the
bundle). Each side runs in a process of its own, one after the other in the same run; wall time and peak
resident memory are those of the whole process, imports included. The first conversion makes each program new,
the second one starts with an empty cache and may take a program that sd-convert ships, the third one finds
what the second one left. ``--peer`` also traces and converts SD 1.5's UNet with ``torch.jit.trace`` and
``ct.convert`` (some 13 GB). Apple's converter is not run; its figures were measured once on the same kind of
machine (two x86 cores, 24 GB), all components, SPLIT_EINSUM.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import apart
import results

#: Seconds and gigabytes of apple/ml-stable-diffusion's converter; palettizing SD 1.5 took it another 245 s.
APPLE = {"sd15": (358, 8.9), "sdxl": (1131, 21.3)}

#: sd-convert ships no programs for it.
OTHER_TARGET = "macOS14"
#: The models as a figure says them.
NAMES = {"sd15": "SD 1.5", "sdxl": "SDXL", "tiny": "a tiny model"}

PEER = """
import sys, numpy as np, torch, coremltools as ct
from diffusers import UNet2DConditionModel
unet = UNet2DConditionModel.from_pretrained(sys.argv[1], subfolder="unet", variant="fp16").float().eval()
class Plain(torch.nn.Module):
    def __init__(self, unet):
        super().__init__(); self.unet = unet
    def forward(self, sample, timestep, states):
        return self.unet(sample, timestep, states.squeeze(2).transpose(1, 2), return_dict=False)[0]
inputs = (torch.zeros(2, 4, 64, 64), torch.zeros(2), torch.zeros(2, 768, 1, 77))
with torch.no_grad():
    traced = torch.jit.trace(Plain(unet), inputs, check_trace=False)
names = ("sample", "timestep", "encoder_hidden_states")
types = [ct.TensorType(name, x.shape, np.float16) for name, x in zip(names, inputs)]
model = ct.convert(traced, inputs=types, outputs=[ct.TensorType("noise_pred", dtype=np.float32)],
                   minimum_deployment_target=ct.target.macOS13, skip_model_load=True)
model.save(sys.argv[2])
"""


def convert(checkpoint: Path, folder: Path, options: argparse.Namespace, environment: dict[str, str]) -> None:
    """Convert three times, print each, and write them where that is asked."""
    sdc = ["-m", "sdc.cli", "convert", str(checkpoint), "-o", str(folder / "bundle")]
    sdc += ["--overwrite", "--attention-implementation", options.attention_implementation]
    sdc += ["--components", options.components] if options.components else []
    made = ["--no-cache", "--min-deployment-target", OTHER_TARGET]
    new = apart.python(*sdc, *made, environment=environment)
    print(f"sdc convert, a new program ({options.model}, {options.components or 'all'}): {said(new)}")
    first = apart.python(*sdc, environment=environment)
    print(f"sdc convert: {said(first)}")
    again = apart.python(*sdc, environment=environment)
    print(f"sdc convert again: {said(again)}")
    rows = [row("sdc convert, a new program", new), row("sdc convert", first)]
    rows.append(row("sdc convert, again", again))
    if options.model in APPLE:
        apple_seconds, apple_peak = APPLE[options.model]
        print(f"Apple's converter (not run now): {apple_seconds} s, {apple_peak} GB")
    if options.peer:
        arguments = ["-c", PEER, checkpoint, folder / "peer.mlpackage"]
        peer = apart.python(*arguments, environment=environment)
        print(f"torch.jit.trace + ct.convert (unet): {said(peer)}")
        rows.insert(0, row("torch.jit.trace + coremltools", peer, is_peer=True))
        ratios = peer.seconds / new.seconds, peer.peak / new.peak
        print(f"ratio: {ratios[0]:.1f} times faster, {ratios[1]:.1f} times less memory")
    if options.json:
        what = f"Convert {NAMES[options.model]} ({options.components or 'all'})"
        results.write(results.measured_here(what, rows, options.note), options.json)


def row(name: str, measured: apart.Measured, *, is_peer: bool = False) -> results.Row:
    """One side of the comparison."""
    return results.Row(name, round(measured.seconds, 2), round(measured.peak, 3), is_peer)


def said(measured: apart.Measured) -> str:
    """Time and memory in words."""
    return f"{measured.seconds:.1f} s, {measured.peak:.2f} GB"


def main() -> None:
    """Make the checkpoint, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["sd15", "sdxl", "tiny"], default="sd15")
    parser.add_argument("--components", help="by default all")
    parser.add_argument("--attention-implementation", default="SPLIT_EINSUM")
    parser.add_argument("--peer", action="store_true", help="SD 1.5 only")
    parser.add_argument("--keep", type=Path, help="make the checkpoint and the bundle here, and leave them")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--note", default="", help="what is to be known of them, in the file")
    options = parser.parse_args()
    if options.peer and options.model != "sd15":
        parser.error("--peer: SD 1.5 only; SDXL would take some 40 GB")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        checkpoint = folder / f"{options.model}-sized"
        if not checkpoint.exists():
            apart.python(Path(__file__).with_name("bench_checkpoint.py"), options.model, checkpoint)
        convert(checkpoint, folder, options, {"XDG_CACHE_HOME": f"{scratch}/cache"})


if __name__ == "__main__":
    main()
