"""Judge pictures, or a whole demo bundle, from pixels alone.

uv run python tools/judge.py picture.png …             # what each picture shows
uv run python tools/judge.py --bundle sdc-demo/bundle  # accuracy: 200 seen captions, all unseen
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image
from sdc.commands.demo import draw_all
from sdc.demo.captions import seen_captions, unseen_captions
from sdc.demo.judge import judge
from sdc.demo.sheet import accuracy, contact_sheet


def judge_bundle(bundle: Path, *, steps: int, seen: int, sheet: Path | None) -> None:
    """Draw one picture for each caption and print how many show what was asked for."""
    chosen = random.Random(0).sample(seen_captions(), seen)
    for name, captions in (("seen", chosen), ("unseen", list(unseen_captions()))):
        exhibits = draw_all(bundle, captions, num_inference_steps=steps)
        for exhibit in exhibits:
            if not exhibit.right:
                print(f"  {exhibit.caption}: {exhibit.verdict}")
        print(f"{name}: {accuracy(exhibits):.1%} of {len(exhibits)}", flush=True)
        if sheet is not None:
            contact_sheet(exhibits, columns=20).save(sheet.with_stem(f"{sheet.stem}-{name}"))


def main() -> None:
    """Judge the files, or the bundle, of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seen", type=int, default=200, help="how many captions of the training to draw")
    parser.add_argument(
        "--sheet", type=Path, help="also write contact sheets, FILE-seen.png and FILE-unseen.png"
    )
    options = parser.parse_args()
    for path in options.pictures:
        with Image.open(path) as picture:
            print(f"{path}: {judge(picture)}")
    if options.bundle:
        judge_bundle(options.bundle, steps=options.steps, seen=options.seen, sheet=options.sheet)


if __name__ == "__main__":
    main()
