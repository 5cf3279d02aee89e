"""One bundle that draws one picture at a time, says how far it is, and can be interrupted between steps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Final

from sdc.serve.messages import Refused

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image
    from sd_bundle import Bundle
    from sd_runtime import GeneratedImage, ImageSettings, ImageSize, Pipeline
    from sd_schedulers import Step

#: Requests that may wait for their turn.
WAITING: Final = 16


@dataclass(frozen=True, slots=True)
class Progress:
    """The picture at work: the ``index``-th of ``count``, ``done`` of ``steps``, since ``began`` (monotonic).

    ``latent``, (1, C, h, w), is what it has come to.
    """

    index: int = 0
    count: int = 0
    done: int = 0
    steps: int = 0
    began: float = 0.0
    latent: npt.NDArray[np.float32] | None = None

    @property
    def share(self) -> float:
        """From 0 to 1, of all pictures."""
        if not self.count:
            return 0.0
        return (self.index + (self.done / self.steps if self.steps else 0.0)) / self.count

    @property
    def seconds_left(self) -> float:
        """At the rate so far; 0 where there is none yet."""
        spent = time.monotonic() - self.began
        return spent / self.share - spent if self.share else 0.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a request came to: pictures, all ``settings``, and whether it was interrupted.

    ``cut`` is what an interrupted picture had come to; it carries no settings, since they would draw another.
    """

    pictures: tuple[GeneratedImage, ...]
    settings: tuple[ImageSettings, ...]
    cut: Image | None = None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Studio:
    """``open_size`` opens the bundle's pipeline for a picture size; the last one stays open.

    ``embeddings`` and ``clip_skip`` are what it opens them with; ``how_previewed`` is for
    ``Pipeline.preview``.
    """

    bundle: Bundle
    open_size: Callable[[ImageSize], Pipeline]
    check_safety: bool = True
    embeddings: tuple[str, ...] = ()
    clip_skip: int = 1
    how_previewed: str | None = None
    progress: Progress = field(default_factory=Progress)
    _pipeline: Pipeline | None = None
    _turn: Lock = field(default_factory=Lock)
    _waiting: int = 0
    _count: Lock = field(default_factory=Lock)
    _interrupted: Event = field(default_factory=Event)
    _closed: bool = False

    @property
    def sizes(self) -> list[ImageSize]:
        """What the bundle draws."""
        return [each.image for each in self.bundle.manifest.model.sizes]

    def draw(
        self, size: ImageSize, options: dict[str, Any], count: int, keep: Callable[[GeneratedImage], object]
    ) -> Drawn:
        """Draw ``count`` pictures from ``seed``, ``seed + 1``, ... when it is their turn; ``keep`` gets each.

        Variations have one seed, and count their variation seed up.

        Raises:
            Refused: too many are waiting, or the server is ending.
        """
        with self._my_turn(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            drawn = self._draw(size, options, count, keep)
        ours = tuple(str(each.message) for each in said if each.category.__module__.startswith("sd_"))
        return replace(drawn, warnings=ours)

    def preview(self) -> Image | None:
        """What the picture at work looks like so far; made for whoever asks, and for nobody else."""
        latent, pipeline = self.progress.latent, self._pipeline
        return None if latent is None or pipeline is None else pipeline.preview(latent, self.how_previewed)

    def interrupt(self) -> None:
        """End the picture at work after its step; without one, nothing."""
        self._interrupted.set()

    def close(self) -> None:
        """End the picture at work, begin no other, and come back when that is so."""
        self._closed = True
        self._interrupted.set()
        with self._turn:
            self._pipeline = None

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        with self._count:
            if self._waiting >= WAITING:
                raise Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE, f"expected at most {WAITING} requests at once, got more"
                )
            self._waiting += 1
        try:
            with self._turn:
                if self._closed:
                    raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the server is ending")
                self._interrupted.clear()
                yield
        finally:
            self.progress = Progress()
            with self._count:
                self._waiting -= 1

    def _draw(
        self, size: ImageSize, options: dict[str, Any], count: int, keep: Callable[[GeneratedImage], object]
    ) -> Drawn:
        pipeline = self._at(size)
        began = time.monotonic()
        pictures: list[GeneratedImage] = []
        settings: list[ImageSettings] = []
        counted = "seed" if options.get("variation_seed") is None else "variation_seed"
        for index in range(count):
            asked = {**options, counted: options[counted] + index}
            self.progress = Progress(index, count, began=began)
            settings.append(pipeline.settings(**asked))
            last = self._sampled(pipeline, asked)
            if last is None or last.index + 1 < last.total:
                cut = None if last is None else self._finished(pipeline, last.denoised, settings[-1], asked)
                return Drawn(tuple(pictures), tuple(settings), None if cut is None else cut.image)
            drawn = self._finished(pipeline, last.latent, settings[-1], asked)
            keep(drawn)
            pictures.append(drawn)
        return Drawn(tuple(pictures), tuple(settings))

    def _finished(
        self,
        pipeline: Pipeline,
        latent: npt.NDArray[np.float32],
        settings: ImageSettings,
        asked: dict[str, Any],
    ) -> GeneratedImage:
        return pipeline.finish(
            latent,
            settings,
            check_safety=self.check_safety,
            image=asked.get("image"),
            mask=asked.get("mask"),
        )

    def _sampled(self, pipeline: Pipeline, options: dict[str, Any]) -> Step | None:
        """The last step that was taken; None if there was none."""
        last = None
        for step in pipeline.steps(**options):
            last = step
            done = step.index + 1
            self.progress = replace(self.progress, done=done, steps=step.total, latent=step.denoised)
            if self._interrupted.is_set():
                break
        return last

    def _at(self, size: ImageSize) -> Pipeline:
        pipeline = self._pipeline
        if pipeline is None or pipeline.bundle.manifest.model.image != size:
            pipeline = self._pipeline = self.open_size(size)
        return pipeline
