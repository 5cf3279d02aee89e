"""A component in every size and form that is asked for: a program for each, one set of weights for all."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from sd_bundle import SIZED_ROLES, ImageSize
from sd_bundle.drafts import link_or_copy
from sd_mil import Constant, Description, Program, write_package
from sd_mil.format import Check, WrittenPackage, layout_of, write_packages
from sd_mil.ir import content_key, joined

from sd_convert.components import Part, Ports
from sd_convert.components.metadata import model_version
from sd_convert.facts import Facts, Sizes
from sd_convert.lowering.checkpoint_tensors import CheckpointTensor
from sd_convert.targets import has_functions, target_named

from .lowered import LoweredComponent, PackedComponent
from .precision import Precision
from .programs import PreparedComponent, Programs, Wanted


@dataclass(frozen=True, slots=True)
class EverySize:
    """The programs of each size, and form of it; the first's are those of networks that serve all."""

    each: tuple[Programs, ...]

    @property
    def first(self) -> Programs:
        """Those of the size that is drawn where none is asked for."""
        return self.each[0]

    @property
    def sizes(self) -> tuple[Sizes, ...]:
        """One of each picture size, in order."""
        known: dict[tuple[int, int], Sizes] = {}
        for one in self.each:
            known.setdefault((one.sizes.height, one.sizes.width), one.sizes)
        return tuple(known.values())

    def of(self, part: Part) -> tuple[Programs, ...]:
        """Those that a component has: of several with the same ports, the first."""
        if part.kind.role not in SIZED_ROLES:
            return self.each[:1]
        known: dict[Ports, Programs] = {}
        for one in self.each:
            known.setdefault(one.ports(part, Precision("float16")), one)
        return tuple(known.values())

    def places(self, part: Part) -> tuple[Place, ...]:
        """Where each of a component's networks is written.

        Of several, the package of the first has a function for each, where the target knows of such; or else
        there is a package for each, whose name ends in what it differs from the first by.
        """
        each = [one.sizes for one in self.of(part)]
        version, options = model_version(part.facts, self.first.options), self.first.options
        names = [part.kind.package_of(version, one) for one in each]
        if len(each) > 1 and has_functions(target_named(options.target)):
            said = ["_".join(_words(part.facts, one, each)) for one in each]
            return tuple(Place(names[0], word) for word in said)
        ends = ("".join(f"_{word}" for word in _words(part.facts, one, each[:1])) for one in each)
        paths = (PurePath(name) for name in names)
        packages = (f"{path.stem}{end}{path.suffix}" for path, end in zip(paths, ends, strict=True))
        return tuple(Place(package, None) for package in packages)

    def wanted(self, part: Part) -> Wanted:
        """The component, and what is known of it in all sizes."""
        wanted = self.first.wanted(part)
        others = self.of(part)[1:]
        return replace(wanted, is_kept=wanted.is_kept and all(one.kept(wanted) for one in others))

    def prepared(self, wanted: Wanted) -> tuple[PreparedComponent, ...]:
        """The program in each size and form, all in the precision of the first, so that weights are equal."""
        first = self.first.prepared(wanted)
        same = replace(wanted, precision=first.precision)
        return (first, *(one.prepared(same) for one in self.of(wanted.part)[1:]))

    def joined(self, part: Part, prepared: Sequence[PreparedComponent]) -> SharedComponent:
        """The programs of all as the functions of one, called as in :meth:`places`."""
        own = self.of(part)
        every = [one.sizes for one in own]
        names = ["_".join(_words(part.facts, one, every)) for one in every]
        opened = [programs.reopened(part, one).lowered() for programs, one in zip(own, prepared, strict=True)]
        return SharedComponent(
            name=opened[0].name,
            program=joined(dict(zip(names, (one.program for one in opened), strict=True)), key=_key),
            descriptions=dict(zip(names, (one.description for one in opened), strict=True)),
            specification=opened[0].specification,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A package's file name, and the function in it, None for its only one."""

    package: str
    function: str | None


@dataclass(frozen=True, slots=True)
class SharedComponent:
    """A component as a program with a function for each picture size and form.

    ``descriptions``: of each function's package. ``specification``: the version of the file format.
    """

    name: str
    program: Program
    descriptions: Mapping[str, Description]
    specification: int

    @property
    def weight_bytes(self) -> int:
        """The size of the weights, which all functions share."""
        return layout_of(self.program).size

    def lowered(self) -> SharedComponent:
        """Itself: see :class:`~sd_convert.conversion.lowered.PackedComponent`."""
        return self

    def write(self, paths: Sequence[Path], check: Check = lambda: None) -> tuple[WrittenPackage, ...]:
        """Write one package of all functions, or one for each with weights that are hard links.

        Raises: see :func:`sd_mil.write_package`.
        """
        if len(paths) == 1:
            written = write_package(
                paths[0],
                self.program,
                self.descriptions,
                version=self.specification,
                identity=self.name,
                check=check,
            )
            return (written,)
        return write_packages(
            dict(zip(self.program.functions, paths, strict=True)),
            self.program,
            self.descriptions,
            version=self.specification,
            identity=self.name,
            copy=link_or_copy,
            check=check,
        )


def image_size(facts: Facts, sizes: Sizes) -> ImageSize:
    """The picture, in pixels, of latents of these sizes."""
    return ImageSize(sizes.height * facts.vae.factor, sizes.width * facts.vae.factor)


def _words(facts: Facts, one: Sizes, others: Sequence[Sizes]) -> Iterator[str]:
    """``768x512_batch1_154tokens_control``: the size, and by what else it differs from one of ``others``.

    From a single other one, the size is said where it differs; residuals are in the name of the package.
    """
    if len(others) > 1 or image_size(facts, one) != image_size(facts, others[0]):
        yield str(image_size(facts, one))
    if any(one.batch != other.batch for other in others):
        yield f"batch{one.batch}"
    if any(one.tokens != other.tokens for other in others):
        yield f"{one.tokens}tokens"
    if one.has_residuals and len(others) > 1 and not all(other.has_residuals for other in others):
        yield "control"


def write_all(
    program: LoweredComponent | PackedComponent | SharedComponent, paths: Sequence[Path], check: Check
) -> tuple[WrittenPackage, ...]:
    """Write a component in the packages that it has."""
    if isinstance(program, SharedComponent):
        return program.write(paths, check)
    (path,) = paths
    return (program.write(path, check),)


def _key(constant: Constant) -> Hashable:
    """Weights of the checkpoint are told apart by name, so that none is read for it."""
    content = constant.content
    if isinstance(content, CheckpointTensor):
        return constant.type, constant.stored, content.source
    return content_key(constant)
