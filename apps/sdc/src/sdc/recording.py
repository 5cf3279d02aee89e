"""What the networks of a bundle are given while it draws: the inputs that compression is calibrated with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sd_bundle import Bundle, BundleComponent
    from sd_mil.engines import Engine
    from sd_runtime import Model

Array: TypeAlias = npt.NDArray[Any]
#: The inputs of each run of each package, by its folder.
Runs: TypeAlias = Mapping[str, Sequence[Mapping[str, Array]]]

_LARGEST_FILE = 2**20  # bytes of prompts


def read_prompts(path: Path) -> list[str]:
    """A prompt from each line of a text file that is not empty.

    Raises:
        sd_compress.CalibrationError: no text, too large, or no prompt in it.
    """
    from sd_compress import CalibrationError

    try:
        if (size := path.stat().st_size) > _LARGEST_FILE:
            raise CalibrationError(f"{path}: expected at most {_LARGEST_FILE} bytes of prompts, got {size}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"expected a text file of prompts, one in each line, got: {error}") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise CalibrationError(f"{path}: expected prompts, one in each line, got none")
    return prompts


@dataclass(frozen=True, slots=True)
class Recording:
    """How a bundle is drawn with: ``steps`` for each prompt, of which ``runs`` of each network are kept.

    Prompt i is drawn from ``seed + i``. In ``folder`` what was recorded stays, so that the same recording is
    not made again.
    """

    components: tuple[str, ...]
    steps: int
    runs: int
    seed: int
    engine: Engine
    folder: Path | None = None

    def record(self, bundle: Bundle, prompts: Sequence[str], drawn: Callable[[int], None]) -> Runs:
        """Draw each prompt; ``drawn`` is told how many are done.

        Raises:
            sd_runtime.SdRuntimeError: the bundle cannot draw them.
        """
        studio = _Studio(bundle.at_size(), self)
        runs: dict[str, list[Mapping[str, Array]]] = {}
        try:
            for number, prompt in enumerate(prompts):
                for package, recorded in studio.recorded(prompt, self.seed + number).items():
                    runs.setdefault(package, []).extend(recorded)
                drawn(number + 1)
        finally:
            studio.close()
        return runs


@dataclass(slots=True)
class _Recorder:
    """A model that remembers what it was given."""

    model: Model
    runs: list[Mapping[str, Array]] = field(default_factory=list)

    def predict(self, inputs: Mapping[str, Array], /) -> Mapping[str, Array]:
        self.runs.append({name: np.array(value) for name, value in inputs.items()})
        return self.model.predict(inputs)


@dataclass(slots=True)
class _Studio:
    """The bundle with recorders in front of its networks."""

    bundle: Bundle
    recording: Recording
    recorders: dict[str, _Recorder] = field(default_factory=dict)
    pipeline: Any = None

    def close(self) -> None:
        """Let go of the networks now: the pipeline, which opens them through this, keeps them in a circle."""
        if self.pipeline is not None:
            self.pipeline.release()
        self.pipeline = None
        self.recorders.clear()

    def recorded(self, prompt: str, seed: int) -> Runs:
        """The runs that drawing a prompt takes, from the folder if they are there."""
        place = self._place(prompt, seed)
        kept = None if place is None else _load(place)
        if kept is not None:
            return kept
        runs = self._draw(prompt, seed)
        if place is not None:
            _save(place, runs)
        return runs

    def _draw(self, prompt: str, seed: int) -> Runs:
        from sd_runtime import Pipeline

        if self.pipeline is None:
            self.pipeline = Pipeline(self.bundle, self._open)  # loading a network takes as long as a few runs
        for _ in self.pipeline.steps(prompt, seed=seed, num_inference_steps=self.recording.steps):
            pass
        found = {}
        for package, recorder in self.recorders.items():
            found[package] = _spread(recorder.runs, self.recording.runs)
            recorder.runs = []
        return found

    def _open(self, component: BundleComponent) -> Model:
        from sd_runtime import ChunkedModel, open_model

        model = open_model(self.bundle, component, engine=self.recording.engine)
        if component.name not in self.recording.components:
            return model
        chunks = component.variant.chunks
        if not isinstance(model, ChunkedModel):
            return self._recorder(chunks[0].package, model)
        parts = zip(chunks, model.models, strict=True)
        return replace(model, models=tuple(self._recorder(chunk.package, part) for chunk, part in parts))

    def _recorder(self, package: str, model: Model) -> _Recorder:
        """One for each package, however often it is loaded."""
        recorder = self.recorders.setdefault(package, _Recorder(model))
        recorder.model = model
        return recorder

    def _place(self, prompt: str, seed: int) -> Path | None:
        if self.recording.folder is None:
            return None
        files = {path: record.sha256 for path, record in self.bundle.manifest.files.items()}
        settings = [self.recording.components, self.recording.steps, self.recording.runs, seed, prompt]
        key = hashlib.sha256(json.dumps([files, settings], sort_keys=True).encode()).hexdigest()
        return self.recording.folder / f"runs-{key[:32]}.npz"


def _spread(runs: Sequence[Mapping[str, Array]], count: int) -> list[Mapping[str, Array]]:
    """At most ``count`` of them, evenly from first to last."""
    places = np.unique(np.linspace(0, len(runs) - 1, min(count, len(runs))).round().astype(int))
    return [runs[place] for place in places]


def _save(place: Path, runs: Runs) -> None:
    from sd_bundle.drafts import replacing

    place.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        json.dumps([package, number, name]): array
        for package, several in runs.items()
        for number, one in enumerate(several)
        for name, array in one.items()
    }
    with replacing(place) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)


def _load(place: Path) -> Runs | None:
    runs: dict[str, dict[int, dict[str, Array]]] = {}
    try:
        with place.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            for key in file.files:
                package, number, name = json.loads(key)
                runs.setdefault(package, {}).setdefault(number, {})[name] = file[key]
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile):  # not there, or not whole
        return None
    return {package: [several[number] for number in sorted(several)] for package, several in runs.items()}
