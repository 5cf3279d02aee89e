"""The manifest: every fact about a bundle, once. FORMAT.md is the same in prose."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sd_bundle.components import BundleComponent, Variant
from sd_bundle.errors import ManifestError
from sd_bundle.facts import ConditioningFacts, LatentSize, ModelFacts
from sd_bundle.paths import check_relative
from sd_bundle.provenance import FileRecord, Provenance
from sd_bundle.rules import check_unique
from sd_bundle.schema import Json, decode, encode, parse_json
from sd_bundle.version1 import upgrade, where_in_version_1
from sd_bundle.version2 import upgrade as upgrade_version_2

FORMAT: Final = "sd-bundle"
VERSION: Final = 3


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of ``manifest.json``. ``files`` lists every file but ``manifest.json`` itself."""

    format: Literal["sd-bundle"]
    version: Literal[3]
    model: ModelFacts
    components: tuple[BundleComponent, ...]
    provenance: Provenance
    files: Mapping[str, FileRecord]

    def __post_init__(self) -> None:
        """Refuse a manifest whose parts contradict each other."""
        for path in self.files:
            check_relative(path, f"$.files.{path}")
        check_unique((path.casefold() for path in self.files), "$.files")
        check_unique((component.name for component in self.components), "$.components")
        self._check_listed()
        self._check_sizes()
        self._check_text_encoders()
        self._check_hidden_states()
        self._check_denoisers()

    def _variants(self) -> Iterator[tuple[str, BundleComponent, Variant]]:
        """Every variant of every component, and the JSON path to it."""
        for i, component in enumerate(self.components):
            for j, variant in enumerate(component.variants):
                yield f"$.components[{i}].variants[{j}]", component, variant

    def _check_listed(self) -> None:
        files = {"$.model.scheduler": self.model.scheduler}
        for index, component in enumerate(self.components):
            if component.compression is not None and component.compression.recipe is not None:
                files[f"$.components[{index}].compression.recipe"] = component.compression.recipe
        for where, path in files.items():
            if path not in self.files:
                raise ManifestError(where, "a file that $.files lists", path)
        folders = {
            f"{where}.chunks[{index}].package": chunk.package
            for where, _, variant in self._variants()
            for index, chunk in enumerate(variant.chunks)
        }
        for index, encoding in enumerate(self.model.text_encoders):
            folders[f"$.model.text_encoders[{index}].tokenizer"] = encoding.tokenizer
        listed = sorted(self.files)
        for where, folder in folders.items():
            index = bisect_left(listed, f"{folder}/")
            if index == len(listed) or not listed[index].startswith(f"{folder}/"):
                raise ManifestError(where, "a folder with files that $.files lists", folder)

    def _check_sizes(self) -> None:
        sizes = {size.image for size in self.model.sizes}
        for where, _, variant in self._variants():
            if variant.size is not None and variant.size not in sizes:
                expected = f"a size of $.model.sizes ({', '.join(map(str, sizes))})"
                raise ManifestError(f"{where}.size", expected, str(variant.size))

    def _check_text_encoders(self) -> None:
        declared = [c.name for c in self.components if c.role == "text_encoder"]
        ordered = [t.component for t in self.model.text_encoders]
        if sorted(declared) != sorted(ordered):
            expected = f"each component with the role text_encoder once ({', '.join(declared) or 'none'})"
            raise ManifestError("$.model.text_encoders", expected, ordered)

    def _check_hidden_states(self) -> None:
        components = {component.name: component for component in self.components}
        for index, encoding in enumerate(self.model.text_encoders):
            for variant in components[encoding.component].variants:
                names = [port.name for port in variant.outputs]
                if encoding.hidden_states not in names:
                    where = f"$.model.text_encoders[{index}].hidden_states"
                    expected = f"{encoding.hidden_states!r} among the component's outputs"
                    raise ManifestError(where, expected, names)

    def _check_denoisers(self) -> None:
        latents = {size.image: size.latent for size in self.model.sizes}
        for where, component, variant in self._variants():
            if component.role == "denoiser" and variant.size is not None:
                shapes = {port.name: port.shape for port in variant.inputs}
                where = f"{where}.inputs" if len(variant.chunks) > 1 else f"{where}.chunks[0].inputs"
                _check_sample(shapes, self.model, latents[variant.size], where)
                _check_conditioning(shapes, self.model.conditioning, where)


def _check_sample(
    shapes: Mapping[str, tuple[int, ...]], model: ModelFacts, latent: LatentSize, where: str
) -> None:
    """Hold the ``sample`` of a denoiser against the latent and the task."""
    expected = (model.denoiser_channels, latent.height, latent.width)
    if shapes.get("sample", ())[1:] != expected:
        sizes = ", ".join(map(str, expected))
        wanted = f"an input 'sample' of shape [batch, {sizes}] for {model.task}"
        raise ManifestError(where, wanted, shapes.get("sample"))


def _check_conditioning(
    shapes: Mapping[str, tuple[int, ...]], conditioning: ConditioningFacts, where: str
) -> None:
    """Hold a denoiser's further inputs against what the manifest says that they mean."""
    count = conditioning.time_id_count
    if count and (shapes.get("time_ids", ())[1:] != (count,) or "text_embeds" not in shapes):
        expected = f"inputs 'time_ids' of shape [batch, {count}] and 'text_embeds'"
        raise ManifestError(where, expected, sorted(shapes))
    due = {"time_ids": bool(count), "timestep_cond": conditioning.guidance_embedding}
    for name, is_due in due.items():
        if (name in shapes) != is_due:
            expected = f"{'an' if is_due else 'no'} input {name!r}, as $.model.conditioning has it"
            raise ManifestError(where, expected, sorted(shapes))


def parse_manifest(text: str) -> Manifest:
    """The manifest in ``text``, of version 3, 2 or 1; all give the same value.

    Raises:
        ManifestError: not JSON, another format or a later version, or a rule of FORMAT.md broken.
    """
    document = parse_json(text)
    version = _version(document) if isinstance(document, dict) else VERSION
    if version == VERSION:
        return decode(Manifest, document)
    if version == 2:
        return decode(Manifest, upgrade_version_2(document))
    upgraded = upgrade_version_2(upgrade(document))
    try:
        return decode(Manifest, upgraded)
    except ManifestError as error:
        raise ManifestError(where_in_version_1(error.where), error.expected, error.got) from None


def _version(document: Mapping[str, Json]) -> int:
    """Found before anything else is looked at: a later version may well have other fields."""
    if document.get("format") != FORMAT:
        raise ManifestError("$.format", repr(FORMAT), document.get("format"))
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        is_later = type(version) is int and version > VERSION
        hint = "; this bundle was written by a newer sdc: update to read it" if is_later else ""
        raise ManifestError("$.version", f"1, 2 or {VERSION}, which this sd-bundle reads{hint}", version)
    return version


def format_manifest(manifest: Manifest) -> str:
    """``manifest`` as the text of ``manifest.json``: the inverse of :func:`parse_manifest`."""
    return json.dumps(encode(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
