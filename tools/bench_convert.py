"""Seconds and memory of a conversion at the size of SD 1.5, beside coremltools' own torch front end.

    uv run python tools/bench_convert.py [--components unet] [--peer] [--keep FOLDER]

The checkpoint has random weights in fp16. Each side runs in a process of its own, one after the other in the
same run; wall time and peak resident memory are those of the whole process, imports included. ``--peer`` also
traces and converts the UNet with ``torch.jit.trace`` and ``ct.convert`` (some 13 GB).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def write_checkpoint(folder: Path) -> None:
    """A checkpoint with SD 1.5's configs, random fp16 weights, and a tokenizer of CLIP's format."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    sys.path.insert(0, str(Path(__file__).parent))
    from demo_checkpoint.tokenizer import write_tokenizer

    torch.manual_seed(0)
    write_tokenizer(folder / "words")
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
            )
        ),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "words"),
        unet=UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=768,
            attention_head_dim=8,
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, variant="fp16")


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident gigabytes of one process."""
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} exited with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - began, usage.ru_maxrss * unit / 1e9


def main() -> None:
    """Make the checkpoint, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--components", default="text_encoder,unet,vae_decoder,vae_encoder")
    parser.add_argument("--attention-implementation", default="SPLIT_EINSUM")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--keep", type=Path, help="make the checkpoint and the bundle here, and leave them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        checkpoint = folder / "sd15-sized"
        if not checkpoint.exists():
            tools = str(Path(__file__).parent)
            maker = (
                f"import sys; sys.path.insert(0, {tools!r}); from pathlib import Path; import bench_convert; "
            )
            maker += f"bench_convert.write_checkpoint(Path({str(checkpoint)!r}))"
            subprocess.run([sys.executable, "-c", maker], check=True)
        choice = ["--components", options.components]
        choice += ["--attention-implementation", options.attention_implementation]
        sdc = [sys.executable, "-m", "sdc.cli", "convert", str(checkpoint), "-o", str(folder / "bundle")]
        seconds, peak = measure([*sdc, *choice, "--overwrite"])
        print(f"sdc convert ({options.components}): {seconds:.1f} s, {peak:.2f} GB")
        if options.peer:
            peer = [sys.executable, "-c", PEER, str(checkpoint), str(folder / "peer.mlpackage")]
            peer_seconds, peer_peak = measure(peer)
            print(f"torch.jit.trace + ct.convert (unet): {peer_seconds:.1f} s, {peer_peak:.2f} GB")
            print(
                f"ratio: {peer_seconds / seconds:.1f} times faster, {peer_peak / peak:.1f} times less memory"
            )


if __name__ == "__main__":
    main()
