"""A component in every picture size that is asked for: a program for each, and one set of weights for all."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sd_bundle import SIZED_ROLES, ImageSize
from sd_bundle.drafts import link_or_copy
from sd_mil import Constant, Description, Program, write_package
from sd_mil.format import Check, WrittenPackage, layout_of, write_packages
from sd_mil.ir import content_key, joined

from sd_convert.components import ComponentKind, Part
from sd_convert.facts import Facts, Sizes
from sd_convert.lowering.checkpoint_tensors import CheckpointTensor

from .lowered import LoweredComponent, PackedComponent
from .programs import PreparedComponent, Programs, Wanted


@dataclass(frozen=True, slots=True)
class EverySize:
    """The programs of each size; the first size's are those of networks that serve all."""

    each: tuple[Programs, ...]

    @property
    def first(self) -> Programs:
        """Those of the size that is drawn where none is asked for."""
        return self.each[0]

    @property
    def sizes(self) -> tuple[Sizes, ...]:
        """All of them, in order."""
        return tuple(one.sizes for one in self.each)

    def of(self, kind: ComponentKind) -> tuple[Programs, ...]:
        """Those that a component of that kind has."""
        return self.each if kind.role in SIZED_ROLES else self.each[:1]

    def wanted(self, part: Part) -> Wanted:
        """The component, and what is known of it in all sizes."""
        wanted = self.first.wanted(part)
        others = self.of(part.kind)[1:]
        return replace(wanted, is_kept=wanted.is_kept and all(one.kept(wanted) for one in others))

    def prepared(self, wanted: Wanted) -> tuple[PreparedComponent, ...]:
        """The program in each size, all in the precision of the first, so that weights are equal."""
        first = self.first.prepared(wanted)
        same = replace(wanted, precision=first.precision)
        return (first, *(one.prepared(same) for one in self.of(wanted.part.kind)[1:]))

    def joined(self, part: Part, prepared: Sequence[PreparedComponent]) -> SharedComponent:
        """The programs of all sizes as the functions of one, called by the sizes of their pictures."""
        names = [str(image_size(part.facts, one.sizes)) for one in self.each]
        opened = [
            programs.reopened(part, one).lowered() for programs, one in zip(self.each, prepared, strict=True)
        ]
        return SharedComponent(
            name=opened[0].name,
            program=joined(dict(zip(names, (one.program for one in opened), strict=True)), key=_key),
            descriptions=dict(zip(names, (one.description for one in opened), strict=True)),
            specification=opened[0].specification,
        )


@dataclass(frozen=True, slots=True)
class SharedComponent:
    """A component as a program with a function for each picture size.

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
