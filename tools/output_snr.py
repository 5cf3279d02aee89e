"""How far the UNets of compressed bundles are from a reference's, in dB, along pictures that it draws.

    uv run python tools/output_snr.py REFERENCE BUNDLE ...

The reference draws captions that the demo checkpoint never saw, from seeds that nothing else uses; what its
UNet was given is given to each bundle's, with and without the caption.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sd_bundle import open_bundle
from sd_compress import signal_to_noise
from sd_mil import read_package
from sd_mil.engines import OpenVINO
from sdc.demo.captions import unseen_captions
from sdc.recording import Recording

FIRST_SEED = 70_000


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
    recording = Recording(("unet",), options.steps, 2 * options.steps, FIRST_SEED, OpenVINO())
    runs = recording.record(open_bundle(options.reference), captions, lambda _: None)
    for package, inputs in runs.items():
        reference = read_package(options.reference / package).program
        for path in options.bundles:
            snr = signal_to_noise(reference, read_package(path / package).program, inputs)
            print(f"{path}: {snr:.2f} dB over {len(inputs)} runs", flush=True)


if __name__ == "__main__":
    main()
