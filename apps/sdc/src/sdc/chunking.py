"""Networks in pieces that run one after the other, and proof that they compute what the whole does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from sd_bundle import Bundle, BundleComponent, Chunk, Draft
    from sd_mil import Comparison, Description, MLModel, Package, Program

#: Of the pieces' outputs against the whole's, in dB, where nothing else is asked.
MIN_PSNR: Final = 60.0

#: By how many dB more a value that crosses has to survive fp16: errors of several add, and layers raise them.
_HEADROOM: Final = 20.0

#: Of the network that is in memory or on the disk in pieces, and of what it does now.
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many pieces, or pieces of at most so many bytes; ``merge``: as one package, a pipeline of them.

    ``min_psnr``: in dB, of the pieces' outputs against the whole's. ``boundaries``: what crosses goes in fp16
    where it is computed so (``fp16``), in ``fp32``, or (``auto``) in fp32 where fp16 costs too many dB.
    """

    count: int | None
    most: int | None
    merge: bool
    min_psnr: float
    seed: int
    boundaries: str = "auto"


@dataclass(frozen=True, slots=True)
class Cut:
    """A network cut: the function or size that was compared, its packages' bytes, what crosses, the proof.

    ``count``: its pieces, which ``--merge-chunks`` puts into one package. ``crossing``: bytes that pass from
    piece to piece; ``raised``: the values among them that go in fp32 though they are computed in fp16.
    """

    name: str
    count: int
    pieces: tuple[int, ...]
    crossing: int
    proof: Comparison
    raised: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Network:
    """A network in one piece: a program of a function for each of its packages, or all of one package's."""

    program: Program
    descriptions: Mapping[str, Description]
    version: int
    packages: tuple[Path, ...]

    @property
    def shared(self) -> bool:
        """Whether one package has all functions."""
        return len(self.packages) == 1


def chunk_bundle(
    bundle: Bundle, output: Path, names: Sequence[str], wanted: Wanted, show: Show, *, overwrite: bool = False
) -> list[Cut]:
    """Write ``bundle`` to ``output`` with the components ``names`` in pieces; all else is copied.

    Raises:
        click.ClickException: a component in pieces already, or one whose outputs changed.
        sd_bundle.BundleError: no such component, or the output exists.
        sd_mil.SdMilError: a package cannot be read, cut or run.
    """
    from sd_bundle import new_bundle

    chosen, manifest, cuts = [bundle.component(name) for name in names], bundle.manifest, []
    with new_bundle(output, manifest.model, provenance=manifest.provenance, overwrite=overwrite) as draft:
        for component in manifest.components:
            if component in chosen:
                cuts += _component(bundle, component, draft, wanted, show)
            else:
                draft.components.append(component)
        replaced = tuple(f"{package}/" for component in chosen for package in component.packages)
        files = [name for name in manifest.files if not name.startswith(replaced)]
        with bundle.unchanged(*files):
            for name in files:
                draft.copy_file(bundle.path / name, name)
                draft.add_hash(name, manifest.files[name].sha256)
    return cuts


def chunk_package(path: Path, folder: Path, wanted: Wanted, show: Show) -> tuple[list[Cut], list[Path]]:
    """Write the pieces of the model at ``path`` into ``folder``, which is there; also their places.

    Raises: as :func:`chunk_bundle`.
    """
    from sd_mil import read_package

    network = _network({path.stem: read_package(path)}, (path,))
    places, raised = _written(network, folder, path.stem, wanted, show)
    return _proved(network, places, raised, wanted, show), [place for several in places for place in several]


def _component(
    bundle: Bundle, component: BundleComponent, draft: Draft, wanted: Wanted, show: Show
) -> list[Cut]:
    from sd_mil import read_package

    if any(len(variant.chunks) > 1 for variant in component.variants):
        raise click.ClickException(
            f"expected {component.name} in one piece, got {len(component.variants[0].chunks)}: cut the "
            "bundle that it was made from"
        )
    sources = tuple(bundle.checked_folder(package) for package in component.packages)
    with bundle.unchanged(*component.packages):
        network = _network({source.stem: read_package(source) for source in sources}, sources)
        places, raised = _written(network, draft.folder, sources[0].stem, wanted, show)
        cuts = _proved(network, places, raised, wanted, show)
    draft.components.append(_described(component, places))
    return cuts


def _network(packages: Mapping[str, Package], paths: tuple[Path, ...]) -> _Network:
    from sd_mil.ir import joined

    first, *others = packages.values()
    if not others:
        name = first.program.default_function
        said = dict(first.descriptions) or {name: first.description}
        return _Network(first.program, said, first.specification_version, paths)
    program = joined({name: package.program for name, package in packages.items()})
    said = {name: package.description for name, package in packages.items()}
    return _Network(program, said, first.specification_version, paths)


#: By function, the values that cross in fp32 though they are computed in fp16.
_Raised = Mapping[str, tuple[str, ...]]


def _raised(network: _Network, pieces: Sequence[Program], wanted: Wanted, show: Show) -> _Raised:
    """What is to cross in fp32: all, nothing, or what fp16 does not hold on random inputs.

    The portable engine computes in fp32, so the values of the whole are there to be rounded.
    """
    from sd_mil import MissingEngineError
    from sd_mil.rewriting import crossing_in_fp16

    crossing = crossing_in_fp16(pieces)
    if wanted.boundaries != "auto":
        return crossing if wanted.boundaries == "fp32" else {}
    with suppress(MissingEngineError):
        return {
            function: _not_held(network.program, function, names, wanted, show)
            for function, names in crossing.items()
            if names
        }
    return {}


def _not_held(
    program: Program, function: str, names: tuple[str, ...], wanted: Wanted, show: Show
) -> tuple[str, ...]:
    import numpy as np
    from sd_mil import TensorType, psnr
    from sd_mil.engines import OpenVINO
    from sd_mil.rewriting import crossing_in_fp32

    show(f"{function}: what crosses")
    whole = program.functions[function]
    returning = replace(whole, body=replace(whole.body, outputs=names))
    narrow = replace(program, functions={**program.functions, function: returning})
    (chosen,) = crossing_in_fp32((narrow,), {function: names})  # an engine rounds what it returns as fp16
    rng, inputs = np.random.default_rng(wanted.seed), {}
    for variable in whole.body.inputs:
        kind = variable.type
        if not isinstance(kind, TensorType) or None in kind.shape:
            return ()
        drawn = rng.standard_normal([size or 0 for size in kind.shape])
        inputs[variable.name] = drawn.astype("int32" if kind.dtype.startswith("int") else "float32")
    values = OpenVINO().compile(chosen, function).run(inputs)
    least, lost = wanted.min_psnr + _HEADROOM, []
    for name, wide in zip(names, chosen.functions[function].outputs, strict=True):
        with np.errstate(over="ignore"):
            rounded = values[wide].astype(np.float16).astype(np.float32)
        if psnr(values[wide], rounded) < least:
            lost.append(name)
    return tuple(lost)


def _written(
    network: _Network, folder: Path, stem: str, wanted: Wanted, show: Show
) -> tuple[tuple[tuple[Path, ...], ...], _Raised]:
    """The packages of each piece, one for each package of the network; of a pipeline there is one piece.

    And what crosses in fp32.
    """
    from sd_bundle.drafts import link_or_copy
    from sd_mil import write_package
    from sd_mil.format import write_packages, write_pipeline
    from sd_mil.rewriting import chunked, crossing_in_fp32, piece_description

    show(f"{stem}: looking for cuts")
    pieces = chunked(network.program, count=wanted.count, most=wanted.most)
    raised = _raised(network, pieces, wanted, show)
    pieces = crossing_in_fp32(pieces, raised)
    said = [
        {name: piece_description(network.descriptions[name], one) for name, one in piece.functions.items()}
        for piece in pieces
    ]
    if wanted.merge:
        if len(network.program.functions) > 1:
            raise click.ClickException("--merge-chunks: expected a network of one size, got several")
        ((name, description),) = network.descriptions.items()
        models = {
            f"{stem}_chunk{number}": (piece, described[name])
            for number, (piece, described) in enumerate(zip(pieces, said, strict=True), 1)
        }
        place = folder / f"{stem}_pipeline.mlpackage"
        show(place.name)
        write_pipeline(place, models, description, version=network.version, identity=stem)
        return ((place,),), raised
    places = []
    for number, (piece, described) in enumerate(zip(pieces, said, strict=True), 1):
        own = tuple(folder / f"{path.stem}_chunk{number}.mlpackage" for path in network.packages)
        show(own[0].name)
        identity = own[0].stem
        if network.shared:
            given = described if len(described) > 1 else next(iter(described.values()))
            write_package(own[0], piece, given, version=network.version, identity=identity)
        else:
            by_function = dict(zip(piece.functions, own, strict=True))
            write_packages(
                by_function, piece, described, version=network.version, identity=identity, copy=link_or_copy
            )
        places.append(own)
    return tuple(places), raised


def _proved(
    network: _Network, places: tuple[tuple[Path, ...], ...], raised: _Raised, wanted: Wanted, show: Show
) -> list[Cut]:
    """Each function, whole and in pieces, on the same inputs; one model in memory at a time."""
    from sd_mil import MissingEngineError, MLModel, compare_outputs

    from sdc.inputs import assemble

    cuts = []
    for index, function in enumerate(network.program.functions):
        at, name = (0, function) if network.shared else (index, None)
        name = name if len(network.program.functions) > 1 else None
        title = network.packages[at].stem if name is None else f"{network.packages[at].stem} {function}"
        show(f"{title}: comparing")
        with suppress(MissingEngineError):
            whole = MLModel(network.packages[at], "portable", function_name=name)
            inputs = assemble(whole, (), rest_random=True, resize=False, seed=wanted.seed)
            expected = whole.predict(inputs)
            del whole
            values, count, crossing = dict(inputs), 0, 0
            for several in places:
                piece = MLModel(several[at], "portable", function_name=name)
                given = {port: values[port] for port in piece.inputs}
                inside = _inside(piece)
                count += len(inside)
                crossing += sum(given[port].nbytes for port in given if port not in inputs) + sum(inside)
                values |= piece.predict(given)
            proof = compare_outputs(expected, {port: values[port] for port in expected})
            if not proof.passed(wanted.min_psnr):
                raise click.ClickException(
                    f"expected outputs of {title} within {wanted.min_psnr:g} dB of those of the whole, got "
                    f"{proof.worst}; nothing was written"
                )
            sizes = tuple(_bytes(several[at]) for several in places)
            cuts.append(Cut(title, count, sizes, crossing, proof, raised.get(function, ())))
    return cuts


def _inside(piece: MLModel) -> tuple[int, ...]:
    """Of each model in a package the bytes that come to it from the others: none, of one by itself."""
    import numpy as np
    from sd_mil import Pipeline

    if not isinstance(piece.package, Pipeline):
        return (0,)
    return tuple(
        sum(
            math.prod(size or 0 for size in port.shape) * np.dtype(port.dtype).itemsize
            for port in one.description.inputs
            if port.name not in piece.inputs
        )
        for one in piece.package.models.values()
    )


def _described(component: BundleComponent, places: tuple[tuple[Path, ...], ...]) -> BundleComponent:
    """The manifest's entry, with the ports that the written packages have."""
    variants = []
    for variant in component.variants:
        (old,) = variant.chunks
        at = component.packages.index(old.package)
        chunks = tuple(_chunk(several[at], old.function) for several in places)
        variants.append(replace(variant, chunks=chunks))
    return replace(component, variants=tuple(variants))


def _chunk(package: Path, function: str | None) -> Chunk:
    from sd_bundle import Chunk, PortSpec
    from sd_mil import Package, read_model

    read = read_model(package)
    said = read.description
    if function is not None and isinstance(read, Package):
        said = read.descriptions.get(function, said)

    def spec(port: Any) -> PortSpec:
        return PortSpec(port.name, port.shape, port.dtype)

    return Chunk(package.name, function, tuple(map(spec, said.inputs)), tuple(map(spec, said.outputs)))


def _bytes(package: Path) -> int:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
