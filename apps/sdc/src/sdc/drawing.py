"""Pictures of the command line, one after the other: where each goes, what is shown and said of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from sdc.apple_options import named
from sdc.contact_sheets import check_sheet, save_sheet
from sdc.prompt_lists import of_several

if TYPE_CHECKING:
    from sd_runtime import GeneratedImage, ImageSize, Pipeline, Safety, SamplingOptions
    from sd_schedulers import Step


@dataclass(frozen=True, slots=True)
class Beside:
    """What is made beside each picture: every so many steps a ``preview``, and what guidance is worth."""

    save_every: int = 0
    preview: str | None = None
    measure_guidance: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """A picture of each of ``texts`` with each of ``seeds``, which are ``seed`` or ``variation_seed``.

    ``output`` is a file or a folder; in ``grid`` all are written once more, a row for each text.
    """

    output: Path
    texts: Sequence[str]
    counted: str
    seeds: range
    grid: Path | None = None

    def places(self) -> Iterator[tuple[Path, str, int]]:
        """Where the picture of each text with each seed is written; in a folder no seed replaces another."""
        has_seeds = len(self.seeds) > 1 or self.output.is_dir()
        for (place, text), seed in itertools.product(enumerate(self.texts, 1), self.seeds):
            target = of_several(named(self.output, text), place, len(self.texts))
            yield numbered(target, seed) if has_seeds else target, text, seed

    def check(self, size: ImageSize, scale: float) -> None:
        """Refuse a grid before anything is drawn; pictures have ``scale`` times the ``size`` of the model.

        Raises:
            UsageError: it is written over one of the pictures, or has too many pixels.
        """
        if self.grid is None:
            return
        if self.grid.resolve() in {path.resolve() for path, _, _ in self.places()}:
            raise click.UsageError(
                f"expected another file for --grid than those of the pictures, got {self.grid}"
            )
        check_sheet(len(self.texts), len(self.seeds), size, scale)

    def draw(
        self,
        pipeline: Pipeline,
        options: dict[str, Any],
        beside: Beside,
        *,
        check_safety: bool,
        safety: Safety | None,
    ) -> GeneratedImage:
        """Write every picture as soon as there is one, and say so; the last one is returned."""
        from sdc.console import console

        pictures = []
        for path, text, seed in self.places():
            own: dict[str, Any] = {**options, self.counted: seed}
            drawn = _draw(
                pipeline,
                text,
                check_safety=check_safety,
                safety=safety,
                save=_saving_every(beside.save_every, path, beside.preview),
                sampled=_measured_guidance(pipeline, text, own) if beside.measure_guidance else None,
                **own,
            )
            drawn.save(path)
            _say(drawn, path)
            if self.grid is not None:
                pictures.append(drawn.image)
        if self.grid is not None:
            save_sheet(pictures, len(self.seeds), self.grid)
            console().print(f"wrote {self.grid}", soft_wrap=True)
        return drawn


def numbered(output: Path, seed: int) -> Path:
    """``cat.png`` for seed 93 of several, or in a folder: ``cat-93.png``."""
    return output.with_name(f"{output.stem}-{seed}{output.suffix}")


def _draw(
    pipeline: Pipeline,
    prompt: str,
    *,
    check_safety: bool,
    safety: Safety | None,
    save: Callable[[Pipeline, Step], None] | None = None,
    sampled: Callable[[Step, float], None] | None = None,
    **options: Unpack[SamplingOptions],
) -> GeneratedImage:
    """One picture, behind a bar that counts the steps, their rate and the time left; ``save`` sees each.

    ``sampled`` gets the last one, and the seconds that all took.
    """
    from sdc.console import progress

    settings = pipeline.settings(prompt, **options)
    with progress(rate="step/s") as bar:
        task = bar.add_task("loading", total=None)
        steps = pipeline.steps(prompt, **options)  # prompts are encoded and networks loaded here
        began = time.perf_counter()
        for step in steps:
            bar.update(task, description="sampling", total=step.total, completed=step.index + 1)
            if save is not None:
                save(pipeline, step)
        if sampled is not None:
            bar.update(task, description="with guidance in all steps")
            sampled(step, time.perf_counter() - began)
        bar.update(task, description="decoding")
        given: dict[str, Any] = {name: options.get(name) for name in ("image", "mask")}
        return pipeline.finish(step.latent, settings, check_safety=check_safety, safety=safety, **given)


def _measured_guidance(
    pipeline: Pipeline, prompt: str, options: dict[str, Any]
) -> Callable[[Step, float], None]:
    """What says how far a picture is from the one with guidance in all steps."""
    from sdc.console import console
    from sdc.skipping import held

    def say(last: Step, seconds: float) -> None:
        console().print(str(held(pipeline, prompt, last.latent, seconds, options)), soft_wrap=True)

    return say


def _saving_every(count: int, path: Path, preview: str | None) -> Callable[[Pipeline, Step], None] | None:
    """What writes every ``count``-th step beside ``path``; the last one is the picture itself."""
    if count == 0:
        return None

    def save(pipeline: Pipeline, step: Step) -> None:
        number = step.index + 1
        if number % count == 0 and number != step.total:
            from sd_bundle.drafts import replacing
            from sd_runtime import format_of

            target = path.with_name(f"{path.stem}-step-{number:03d}{path.suffix}")
            with replacing(target) as draft:
                pipeline.preview(step.denoised, preview or "vae").save(draft, format=format_of(target))

    return save


#: What the last line says of pictures that were not checked.
UNCHECKED = {"absent": "; unchecked, for want of a safety checker", "off": "; unchecked, as asked"}


def _say(drawn: GeneratedImage, target: Path) -> None:
    from sdc.console import console

    flag = ""
    if drawn.flagged:
        done = {"black": "black", "blur": "blurred"}.get(drawn.safety.action or "", "shown")
        flag = f"; {done}, and the safety checker flagged it"
    recipe = f", recipe {drawn.settings.recipe}" if drawn.settings.recipe else ""
    console().print(f"wrote {target} (seed {drawn.settings.seed}{recipe}){flag}", soft_wrap=True)
