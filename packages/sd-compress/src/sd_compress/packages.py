"""Package -> package, and bundle -> bundle: written beside their place, renamed when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Final, TypeAlias

from sd_bundle import (
    Bundle,
    BundleComponent,
    Compression,
    CompressionMethod,
    Draft,
    OutputExistsError,
    new_bundle,
    open_bundle,
)
from sd_bundle.drafts import draft_folder, link_or_copy, remove_abandoned, sibling
from sd_mil import Constant, Package, Program, dropping_weights, read_package, write_package
from sd_mil.format import WEIGHTS, write_packages
from sd_mil.ir import joined

from .activations import LayerInputs
from .compress import Assign, CompressedProgram, Progress, WeightReport, compress
from .errors import CompressionError, RecipeError
from .palettes import optimal_palette
from .raising import specification_version, with_target
from .recipe import Recipe, check_names, compressed_names, format_recipe
from .schemes import Joint, Linear, Palettize, Prune, Scheme
from .storage import StorageReport, StorageRow, storage
from .targets import TARGETS, target_named
from .weights import weights_of

#: A recipe, or what makes one of a program.
RecipeFor: TypeAlias = Recipe | Callable[[Program], Recipe]
#: Called as :data:`~sd_compress.compress.Progress`, with the package's name first.
PackageProgress: TypeAlias = Callable[[str, int, int, str], None]

#: What is compressed of a bundle unless something else is asked for: as Apple's converter has it.
COMPRESSED_ROLES: Final = (
    "denoiser",
    "text_encoder",
    "controlnet",
    "t2i_adapter",
    "vision_encoder",
    "image_projection",
)


@dataclass(frozen=True, slots=True)
class PackageReport:
    """A package compressed: what became of its weights, how they are stored, its bytes, and seconds."""

    name: str
    weights: tuple[WeightReport, ...]
    before: StorageReport
    after: StorageReport
    bytes_before: int
    bytes_after: int
    seconds: float

    @property
    def bits_per_weight(self) -> float:
        """On average over all weights, tables and scales included."""
        return self.after.total.bits_per_weight


@dataclass(frozen=True, slots=True)
class BundleReport:
    """A bundle compressed: the packages of each component, by its name, and seconds for all."""

    path: Path
    components: dict[str, tuple[PackageReport, ...]]
    seconds: float


def compress_package(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    recipe: RecipeFor,
    *,
    target: str | None = None,
    assign: Assign = optimal_palette,
    inputs: LayerInputs = MappingProxyType({}),
    overwrite: bool = False,
    progress: PackageProgress | None = None,
    workers: int | None = None,
) -> PackageReport:
    """Compress the weights of the model at ``path``, and write it as the package ``output``.

    ``target``: the oldest system that is to load it (``iOS18``, ``macOS15``), if that is newer than now. What
    was at ``output`` stays until the new package is complete, and if anything goes wrong. ``inputs``: for
    schemes with activations, as :func:`collect_activations` finds them.

    Raises:
        RecipeError, UnsupportedFormError, CompressionError: see :func:`~sd_compress.compress.compress`.
        OutputExistsError: there is something at ``output``, and it is not to be overwritten or no package.
        sd_mil.SdMilError: the model cannot be read.
    """
    place = Path(output).resolve()
    _check_output(place, overwrite=overwrite)
    remove_abandoned(place)
    work = _Work(target, assign, inputs, progress, workers)
    package = read_package(path)
    applied = _made(recipe, package.program)
    _refuse_nothing([applied])
    with draft_folder(place) as draft:
        report, _ = work.package(Path(path), package, draft / place.name, applied)
        _check_output(place, overwrite=overwrite)
        _put_in_place(draft / place.name, place)
    return report


def compress_bundle(
    bundle: Bundle | str | os.PathLike[str],
    output: str | os.PathLike[str],
    recipe: RecipeFor,
    *,
    components: Sequence[str] | None = None,
    target: str | None = None,
    assign: Assign = optimal_palette,
    inputs: LayerInputs = MappingProxyType({}),
    overwrite: bool = False,
    progress: PackageProgress | None = None,
    workers: int | None = None,
) -> BundleReport:
    """Compress the packages of ``components``, and write the whole as the bundle ``output``.

    By default the denoiser and the text encoders. The manifest says for each what was done, and refers to the
    recipe, which is kept in the bundle. All else is copied.

    Raises:
        RecipeError: also, when a recipe names weights that none of the components has.
        sd_bundle.BundleError: not a bundle, no such component, or the output exists.
    """
    began = perf_counter()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    manifest, chosen = opened.manifest, chosen_components(opened, components)
    packages = {name: read_package(opened.path / name) for one in chosen for name in one.packages}
    recipes = _recipes(recipe, packages)
    work = _Work(target, assign, inputs, progress, workers)
    reports: dict[str, tuple[PackageReport, ...]] = {}
    place = Path(output)
    with new_bundle(place, manifest.model, provenance=manifest.provenance, overwrite=overwrite) as draft:
        for component in manifest.components:
            if component in chosen:
                reports[component.name] = work.component(opened, component, draft, recipes)
            else:
                draft.components.append(component)
        replaced = tuple(f"{package}/" for package in packages)
        _copy(opened, draft, (name for name in manifest.files if not name.startswith(replaced)))
    return BundleReport(place, reports, perf_counter() - began)


@dataclass(frozen=True, slots=True)
class _Work:
    """What all packages of one compression have in common."""

    target: str | None
    assign: Assign
    inputs: LayerInputs
    progress: PackageProgress | None
    workers: int | None

    def component(
        self, bundle: Bundle, component: BundleComponent, draft: Draft, recipes: Mapping[str, Recipe]
    ) -> tuple[PackageReport, ...]:
        """Compress all packages of a component into the draft, and announce it there."""
        reports: dict[str, PackageReport] = {}
        places = dict(zip(component.packages, draft.add_packages(component), strict=True))
        for names in sharing_weights(bundle, component):
            sources = {name: bundle.checked_folder(name) for name in names}
            done = self._together(sources, places, recipes[names[0]])
            for name, (report, sha256) in zip(names, done, strict=True):
                for relative, digest in sha256.items():
                    draft.add_hash(f"{name}/{relative}", digest)
                reports[name] = report
        ordered = [reports[name] for name in component.packages]
        draft.components[-1] = self._described(component, ordered, recipes, draft)
        return tuple(ordered)

    def _together(
        self, sources: Mapping[str, Path], places: Mapping[str, Path], recipe: Recipe
    ) -> list[tuple[PackageReport, Mapping[str, str]]]:
        """Compress packages that have one weight.bin among them into such again: each weight is done once."""
        packages = {name: read_package(source) for name, source in sources.items()}
        if len(packages) == 1:
            ((name, package),) = packages.items()
            return [self.package(sources[name], package, places[name], recipe)]
        began, first = perf_counter(), next(iter(packages))
        programs = {name: self._raised(package.program) for name, package in packages.items()}
        program = joined(programs, key=_place_in_file)
        with dropping_weights(program):
            made = self._compressed(program, recipe, first, places[first].parent)
            written = write_packages(
                {name: places[name] for name in packages},
                made.program,
                {name: package.description for name, package in packages.items()},
                version=specification_version(made.program, packages[first].specification_version),
                identity=sources[first].stem,
                copy=link_or_copy,
            )
        seconds, reports = perf_counter() - began, []
        for (name, package), one in zip(packages.items(), written, strict=True):
            weights = tuple(weight for weight in made.weights if weight.function == name)
            report = _report(sources[name], package, places[name], weights, one.bytes, seconds)
            reports.append((report, one.sha256))
        return reports

    def _raised(self, program: Program) -> Program:
        return program if self.target is None else with_target(program, self._number())

    def _compressed(self, program: Program, recipe: Recipe, name: str, folder: Path) -> CompressedProgram:
        return compress(
            program,
            recipe,
            assign=self.assign,
            inputs=self.inputs,
            progress=self._progress(name),
            workers=self.workers,
            folder=folder,
        )

    def package(
        self, source: Path, package: Package, place: Path, recipe: Recipe
    ) -> tuple[PackageReport, Mapping[str, str]]:
        """Compress one package; also the sha256 of each file that was written."""
        began = perf_counter()
        program = self._raised(package.program)
        with dropping_weights(program):
            made = self._compressed(program, recipe, source.name, place.parent)
            written = write_package(
                place,
                made.program,
                package.descriptions or package.description,
                version=specification_version(made.program, package.specification_version),
                identity=source.stem,
            )
        seconds = perf_counter() - began
        report = _report(source, package, place, made.weights, written.bytes, seconds)
        return report, written.sha256

    def _number(self) -> int:
        return target_named(self.target or "")

    def _progress(self, name: str) -> Progress | None:
        tell = self.progress
        return None if tell is None else lambda done, total, weight: tell(name, done, total, weight)

    def _described(
        self,
        component: BundleComponent,
        reports: list[PackageReport],
        recipes: Mapping[str, Recipe],
        draft: Draft,
    ) -> BundleComponent:
        """The component with what was done to it, and the recipe among the files of the bundle."""
        weights = [weight for report in reports for weight in report.weights]
        applied = (recipes[package].schemes for package in component.packages)
        schemes = {name: scheme for one in applied for name, scheme in one.items()}
        totals = [report.after.total for report in reports]
        before = () if component.compression is None else component.compression.methods
        described = describe_compression(component.name, weights, Recipe(schemes), totals, before)
        if described is None:
            return component
        compression, files = described
        for relative, content in files.items():
            draft.add_file(relative, content)
        target = self._newer(component.deployment_target)
        return replace(component, compression=compression, deployment_target=target)

    def _newer(self, present: str) -> str:
        if self.target is None or TARGETS.get(present, self._number()) >= self._number():
            return present
        return self.target


def sharing_weights(bundle: Bundle, component: BundleComponent) -> list[list[str]]:
    """The packages of a component, those together that have the same weight.bin, by the manifest's sha256."""
    groups: dict[str, list[str]] = {}
    for package in component.packages:
        record = bundle.manifest.files.get(f"{package}/{WEIGHTS}")
        groups.setdefault(package if record is None else record.sha256, []).append(package)
    return list(groups.values())


def _place_in_file(constant: Constant) -> Hashable:
    """Equal where files are equal."""
    return constant.type, constant.blob


def _report(
    source: Path,
    package: Package,
    place: Path,
    weights: tuple[WeightReport, ...],
    count: int,
    seconds: float,
) -> PackageReport:
    return PackageReport(
        name=source.name,
        weights=weights,
        before=storage(package),
        after=storage(read_package(place)),
        bytes_before=_size(source),
        bytes_after=count,
        seconds=seconds,
    )


def describe_compression(
    component: str,
    weights: Iterable[WeightReport],
    recipe: Recipe,
    totals: Iterable[StorageRow],
    before: Sequence[CompressionMethod] = (),
) -> tuple[Compression, dict[str, bytes]] | None:
    """What a manifest says of a component, and the recipe as a file of the bundle; None if all was kept.

    ``totals``: what all weights of each package take; ``before``: what had been done to them earlier.
    """
    done = [one.scheme for one in weights if not one.kept]
    if not done:
        return None
    methods = dict.fromkeys([*before, *(method for scheme in done for method in methods_of(scheme))])
    rows = tuple(totals)
    bits = 8 * sum(row.stored_bytes for row in rows) / sum(row.elements for row in rows)
    relative = f"recipes/{component}.json"
    return Compression(tuple(methods), bits, relative), {relative: format_recipe(recipe).encode()}


def methods_of(scheme: Scheme) -> tuple[CompressionMethod, ...]:
    """coremltools' names of what a scheme does, in order."""
    if isinstance(scheme, Joint):
        return (*methods_of(scheme.prune), *methods_of(scheme.then))
    if isinstance(scheme, Palettize):
        return ("palettization",)
    if isinstance(scheme, Linear):
        return (
            ("quantization",) if scheme.activations is None else ("quantization", "activation_quantization")
        )
    return ("pruning",) if isinstance(scheme, Prune) else ()


def _made(recipe: RecipeFor, program: Program) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else recipe(program)


def _recipes(recipe: RecipeFor, packages: Mapping[str, Package]) -> dict[str, Recipe]:
    """What is to be done to each package, and something to one of them."""
    if isinstance(recipe, Recipe):
        check_names(recipe, (package.program for package in packages.values()))
    made = {}
    for name, package in packages.items():
        known = {weight.name for weight in weights_of(package.program)}
        schemes = _made(recipe, package.program).schemes
        made[name] = Recipe({weight: scheme for weight, scheme in schemes.items() if weight in known})
    _refuse_nothing(made.values())
    return made


def _refuse_nothing(recipes: Iterable[Recipe]) -> None:
    if not any(compressed_names(recipe) for recipe in recipes):
        raise RecipeError(
            "expected weights to compress, got none: they are compressed already, smaller than the "
            "selection's limit, or none of its names"
        )


def chosen_components(bundle: Bundle, names: Sequence[str] | None = None) -> list[BundleComponent]:
    """Those of these names, or those that are compressed by default.

    Raises:
        sd_bundle.MissingComponentError: there is none of a name.
        CompressionError: there is none that is compressed by default.
    """
    if names is not None:
        return [bundle.component(name) for name in dict.fromkeys(names)]
    found = [one for one in bundle.manifest.components if one.role in COMPRESSED_ROLES]
    if not found:
        have = ", ".join(one.name for one in bundle.manifest.components)
        raise CompressionError(f"expected a denoiser or a text encoder, got {have}: name the components")
    return found


def _copy(bundle: Bundle, draft: Draft, names: Iterable[str]) -> None:
    files = tuple(names)
    with bundle.unchanged(*files):
        for name in files:
            if name in draft.hashes or (draft.folder / name).exists():
                continue  # a recipe of an earlier compression, which the new one replaces
            draft.copy_file(bundle.path / name, name)
            draft.add_hash(name, bundle.manifest.files[name].sha256)


def _check_output(place: Path, *, overwrite: bool) -> None:
    if place.suffix != ".mlpackage":
        raise CompressionError(f"{place}: expected an output that ends in .mlpackage")
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise OutputExistsError(f"{place} exists: choose another output, or ask to overwrite it")
    if not (place / "Manifest.json").is_file():
        raise OutputExistsError(f"{place} is no package, so it is not overwritten: choose another output")


def _put_in_place(made: Path, place: Path) -> None:
    """Rename the package; what was there before comes back if that fails."""
    aside = sibling(place, "old")
    try:
        if place.exists():
            place.rename(aside)
        made.rename(place)
    except BaseException:
        if aside.exists() and not place.exists():
            aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
