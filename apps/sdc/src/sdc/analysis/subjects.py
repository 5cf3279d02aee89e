"""What can be analysed: a bundle, which also draws, or a single package."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import click

if TYPE_CHECKING:
    from sd_bundle import Bundle, BundleComponent
    from sd_mil import Package
    from sd_mil.engines import Engine
    from sd_runtime import Model, Pipeline

#: (component, package) -> the package to load in its place.
Prepare: TypeAlias = "Callable[[str, Package], Package]"
#: (component, its model) -> what takes the model's place: one that records, say.
Wrap: TypeAlias = "Callable[[str, Model], Model]"
#: Called with a few words before each piece of work, and once for each piece.
Watch: TypeAlias = Callable[[str], None]

_DRAWING_ROLES = ("text_encoder", "denoiser", "image_decoder")


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn, at every setting the same: one picture for each prompt, with seeds from ``seed`` on."""

    prompts: tuple[str, ...]
    seed: int
    num_inference_steps: int


class Subject(Protocol):
    """A model whose components are compressed."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def components(self) -> tuple[str, ...]:
        """Those to compress."""
        ...

    @property
    def drawing(self) -> Drawing | None:
        """What is drawn; None if nothing is."""
        ...

    def folders(self, component: str) -> tuple[Path, ...]:
        """The packages of a component."""
        ...

    def open(self, component: str, prepare: Prepare) -> Model:
        """Load a component whose packages ``prepare`` may replace."""
        ...

    def exercise(self, open_model: Callable[[str], Model], watch: Watch) -> tuple[bytes, ...]:
        """Run every component on typical inputs, each as ``open_model`` returns it; the pictures, as PNG."""
        ...


@dataclass(frozen=True)
class BundleSubject:
    """A bundle that draws from text, in its first picture size."""

    bundle: Bundle
    components: tuple[str, ...]
    drawing: Drawing
    engine: Engine

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn with, and components that there are not.

        Raises:
            click.ClickException: the bundle does not draw from text.
            sd_bundle.MissingComponentError: no component of such a name.
        """
        for name in self.components:
            component = self.bundle.component(name)
            if component.role not in _DRAWING_ROLES:
                raise click.ClickException(
                    f"expected components that draw ({', '.join(_DRAWING_ROLES)}), got {name} "
                    f"({component.role}); its package can be analysed alone: {component.packages[0]}"
                )
        missing = [role for role in _DRAWING_ROLES if not self.bundle.components(role)]  # type: ignore[arg-type]
        task = self.bundle.manifest.model.task
        if missing or task != "text-to-image":
            got = f"no {' and no '.join(missing)}" if missing else f"a bundle for {task}"
            raise click.ClickException(
                f"expected a bundle that draws from text in {self.bundle.path}, got {got}; "
                "its packages can be analysed one by one"
            )

    @property
    def name(self) -> str:
        """The model's identifier."""
        return self.bundle.manifest.model.identifier

    def folders(self, component: str) -> tuple[Path, ...]:
        """The packages of all chunks, each once."""
        chunks = self.bundle.component(component).variant.chunks
        return tuple(self.bundle.checked_folder(name) for name in dict.fromkeys(c.package for c in chunks))

    def open(self, component: str, prepare: Prepare) -> Model:
        """By sd-runtime, which holds the package against the manifest."""
        return self._opened(self.bundle.component(component), prepare)

    def _opened(self, component: BundleComponent, prepare: Prepare) -> Model:
        from sd_runtime import open_model

        def prepared(package: Package) -> Package:
            return prepare(component.name, package)

        return open_model(self.bundle, component, engine=self.engine, prepare=prepared)

    def exercise(self, open_model: Callable[[str], Model], watch: Watch) -> tuple[bytes, ...]:
        """Draw every prompt."""
        from sd_runtime import Pipeline

        def opened(component: BundleComponent) -> Model:
            return open_model(component.name)

        pipeline = Pipeline(self.bundle, opened, engine=self.engine.name)
        return tuple(_png(pipeline, prompt, seed, self.drawing, watch) for seed, prompt in self._seeded())

    def _seeded(self) -> Iterator[tuple[int, str]]:
        return enumerate(self.drawing.prompts, start=self.drawing.seed)


def _png(pipeline: Pipeline, prompt: str, seed: int, drawing: Drawing, watch: Watch) -> bytes:
    options: dict[str, Any] = {"seed": seed, "num_inference_steps": drawing.num_inference_steps}
    settings = pipeline.settings(prompt, **options)
    for step in pipeline.steps(prompt, **options):
        watch(f"drawing, step {step.index + 1} of {step.total}")
        latent = step.latent
    drawn = pipeline.finish(latent, settings)
    file = io.BytesIO()
    drawn.image.save(file, format="PNG")
    return file.getvalue()


@dataclass(frozen=True)
class PackageSubject:
    """A single package, run on ``count`` random inputs, the same at every setting."""

    path: Path
    engine: Engine
    seed: int
    count: int = 4

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def components(self) -> tuple[str, ...]:
        """The package itself."""
        return (self.path.stem,)

    @property
    def drawing(self) -> Drawing | None:
        """Nothing is drawn."""
        return None

    def folders(self, component: str) -> tuple[Path, ...]:  # noqa: ARG002 - it is the only one
        """The package itself."""
        return (self.path,)

    def open(self, component: str, prepare: Prepare) -> Model:
        """By sd-mil."""
        from sd_mil import MLModel, read_package

        return MLModel(prepare(component, read_package(self.path)), self.engine)

    def exercise(self, open_model: Callable[[str], Model], watch: Watch) -> tuple[bytes, ...]:
        """Run it on inputs as ``sdc run --random`` draws them."""
        from sd_mil import MLModel

        from sdc.inputs import assemble

        ports = MLModel(self.path, self.engine)
        model = open_model(self.path.stem)
        for index in range(self.count):
            watch("running")
            model.predict(assemble(ports, (), rest_random=True, resize=False, seed=self.seed + index))
        return ()
