"""New weights into the programs of a bundle that is there: its options, and nothing but weights to write.

A bundle holds the programs of its packages without weights (``programs/``). A checkpoint of the same
architecture gets them, and its packages are those that a full conversion with the same options would write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sd_bundle import Bundle, BundleComponent, Form, Variant, open_bundle

from sd_convert.components import Part
from sd_convert.errors import LikeError
from sd_convert.facts import ADAPTER_RESIDUAL, RESIDUAL

from .every_size import EverySize
from .lowered import header_of
from .options import ConversionOptions
from .precision import Precision
from .programs import PreparedComponent, Programs
from .stores import FOLDER, ProgramFolder

_DEFAULTS: Final = ConversionOptions()
#: What a bundle does not say, and may be chosen.
_FREE: Final = ("components", "model_version", "recipe", "overwrite")


@dataclass(frozen=True, slots=True)
class Likeness:
    """A bundle that another one is to be like; ``architectures``: what its programs were made for."""

    bundle: Bundle
    programs: ProgramFolder
    architectures: tuple[Mapping[str, Any], ...]

    @staticmethod
    def of(path: str | Path) -> Likeness:
        """The likeness of the bundle at ``path``.

        Raises:
            sd_bundle.BundleError: not a sound bundle; its programs are held against their sha256.
        """
        bundle = open_bundle(path)
        is_there = any(name.startswith(f"{FOLDER}/") for name in bundle.manifest.files)
        folder = bundle.checked_folder(FOLDER) if is_there else bundle.path / FOLDER
        programs = ProgramFolder(folder, str(bundle.path))
        return Likeness(bundle, programs, tuple(_architectures(programs)))

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the bundle's components."""
        return tuple(component.name for component in self.bundle.manifest.components)

    def options(self, given: ConversionOptions) -> ConversionOptions:
        """The options that the bundle was made with; of ``given``, those that a bundle leaves open.

        Raises:
            LikeError: ``given`` says something else besides, or the bundle has components of several kinds.
        """
        for name in ConversionOptions.__dataclass_fields__:
            if name not in _FREE and getattr(given, name) != getattr(_DEFAULTS, name):
                raise LikeError(
                    f"{name}: expected none beside the bundle that this one is to be like, "
                    f"got {getattr(given, name)}; convert without it to choose"
                )
        entries = self.bundle.manifest.components
        self._refuse_other_kinds(entries)
        shapes = {port.name: port.shape for entry in entries for port in entry.variants[0].inputs}
        sizes = self.bundle.manifest.model.sizes
        latent = sizes[0].latent if len(sizes) == 1 else None
        attended, ids = shapes.get("encoder_hidden_states", ()), shapes.get("input_ids", ())
        return replace(
            given,
            components=given.components or self.components,
            attention_implementation=self._attention(entries),
            compute_unit=entries[0].compute_unit,
            target=entries[0].deployment_target,
            latent_height=latent.height if latent else None,
            latent_width=latent.width if latent else None,
            sizes=() if latent else tuple(size.image for size in sizes),
            text_token_sequence_length=(*attended[3:], *ids[1:], None)[0],
            unet_support_controlnet=any(name.startswith(RESIDUAL) for name in shapes),
            unet_support_t2i_adapter=any(name.startswith(ADAPTER_RESIDUAL) for name in shapes),
            unet_batch_one=shapes.get("sample", ())[:1] == (1,),
            unet_forms=_forms(self.bundle.forms()),
            compute_precision=self._precisions(entries),
        )

    def check(self, programs: EverySize, parts: tuple[Part, ...]) -> None:
        """Hold what is to be converted against the bundle, before anything is done.

        Raises:
            LikeError: the first difference, by name.
        """
        model, facts = self.bundle.manifest.model, parts[0].facts
        stated = {"family": model.family, "task": model.task}
        self._same("the model", stated, {"family": facts.family.name, "task": facts.unet.task.name})
        for part in parts:
            if part.name not in self.components:
                raise LikeError(
                    f"{part.name}: expected components of {self.bundle.path} ({', '.join(self.components)}), "
                    "got another; convert without the bundle"
                )
            variants = self.bundle.component(part.name).variants
            if (count := len(programs.of(part))) != len(variants):
                raise LikeError(
                    f"{part.name}: expected each size in each form, {count} networks, got {len(variants)} in "
                    f"{self.bundle.path}; convert without the bundle"
                )
            for one, variant in zip(programs.of(part), variants, strict=True):
                self._check_variant(one, part, variant)

    def _check_variant(self, programs: Programs, part: Part, variant: Variant) -> None:
        wanted = programs.wanted(part)
        for architecture in self.architectures:
            if architecture.get("component") == part.name and _is_for(architecture, variant):
                precision = wanted.precision or Precision(architecture["precision"])
                self._same(part.name, architecture, programs.architecture(part, precision))
        ports = {port.name: list(port.shape) for port in (*variant.inputs, *variant.outputs)}
        ours = programs.ports(part, wanted.precision or Precision("float16"))
        got = {port.name: list(port.shape) for port in (*ours.inputs, *ours.outputs)}
        self._same(part.name, {"ports": ports}, {"ports": got})

    def check_precision(self, part: Part, prepared: PreparedComponent) -> None:
        """Refuse with :class:`LikeError` weights that need another arithmetic than the bundle's."""
        entry = self.bundle.component(part.name)
        stated = {port.name: port.dtype for port in entry.variants[0].inputs}
        for port in prepared.ports.inputs:
            if stated[port.name] != port.dtype:
                reason = f" ({prepared.precision.reason})" if prepared.precision.reason else ""
                raise LikeError(
                    f"{part.name}: expected weights for {stated[port.name]}, as in {self.bundle.path}, "
                    f"got some for {port.dtype}{reason}; convert without the bundle"
                )

    def _same(self, what: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
        difference = first_difference(expected, got)
        if difference is not None:
            where, theirs, ours = difference
            raise LikeError(
                f"{what}: {where}: expected {theirs!r:.100}, as in {self.bundle.path}, got {ours!r:.100}; "
                "convert without the bundle"
            )

    def _refuse_other_kinds(self, entries: tuple[BundleComponent, ...]) -> None:
        for entry in entries:
            if entry.compression is not None:
                methods = " and ".join(entry.compression.methods)
                raise LikeError(
                    f"{entry.name}: expected weights as they are, got {methods} to "
                    f"{entry.compression.bits_per_weight:.2g} bits in {self.bundle.path}: what is stored of "
                    "compressed weights follows from all of them; convert like a bundle without, then "
                    "compress"
                )
            if any(len(variant.chunks) > 1 for variant in entry.variants):
                raise LikeError(
                    f"{entry.name}: expected a network in one piece, got chunks in {self.bundle.path}; "
                    "convert like a bundle without, and cut the result"
                )
            if (entry.compute_unit, entry.deployment_target) != (
                entries[0].compute_unit,
                entries[0].deployment_target,
            ):
                raise LikeError(
                    f"{entry.name}: expected one system and compute unit for all of {self.bundle.path}, "
                    f"got {entry.deployment_target} and {entry.compute_unit}; convert without the bundle"
                )

    def _attention(self, entries: tuple[BundleComponent, ...]) -> str:
        chosen = (entry.attention_implementation for entry in entries)
        return next((one for one in chosen if one is not None), _DEFAULTS.attention_implementation)

    def _precisions(self, entries: tuple[BundleComponent, ...]) -> tuple[str, ...]:
        """fp32 where a network computes in it that was not found by a check."""
        exact = {
            architecture["component"]
            for architecture in self.architectures
            for entry in entries
            if architecture.get("component") == entry.name
            and _is_for(architecture, entry.variants[0])
            and architecture.get("precision") == "float32"
            and entry.role not in ("image_decoder", "preview_decoder", "image_encoder")
        }
        return tuple(f"{name}=fp32" for name in sorted(exact))


def _forms(forms: tuple[Form, ...]) -> tuple[str, ...]:
    """What tells the forms of a denoiser from the first, as options say it."""
    if not forms:
        return ()
    first, tokens = forms[0], dict.fromkeys(form.tokens for form in forms)
    asked = {
        "controlnet": len({"controlnet" in form.takes for form in forms}) > 1,
        "batch-one": len({form.batch for form in forms}) > 1,
        **{f"tokens={count}": count != first.tokens for count in tokens},
    }
    return tuple(entry for entry, is_asked in asked.items() if is_asked)


def first_difference(expected: Any, got: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Where two values of JSON first differ, and what is there in each; None where they are equal."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        for key in (*expected, *(key for key in got if key not in expected)):
            inner = f"{path}.{key}" if path else str(key)
            found = first_difference(expected.get(key), got.get(key), inner)
            if found is not None:
                return found
        return None
    return None if expected == got else (path, expected, got)


def _architectures(programs: ProgramFolder) -> Iterator[Mapping[str, Any]]:
    for content in programs.all():
        try:
            yield header_of(content)["architecture"]
        except ValueError:
            continue  # who needs it lowers it anew


def _is_for(architecture: Mapping[str, Any], variant: Variant) -> bool:
    """Whether a program is that of the package, not of a check of its precision."""
    stated = {port.name: [port.dtype, *port.shape] for port in variant.inputs}
    return architecture.get("inputs") == stated
