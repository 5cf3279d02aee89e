"""The manifest: what is written is what is read, whatever it says."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from sd_bundle import (
    SIZED_ROLES,
    AddedEmbedding,
    BundleComponent,
    Chunk,
    Compression,
    ConditioningFacts,
    CustomVae,
    DenoiserFacts,
    FileRecord,
    ImageSize,
    LatentSize,
    Manifest,
    ManifestError,
    MergedLora,
    ModelFacts,
    PictureSize,
    PortSpec,
    Provenance,
    Role,
    SourceFile,
    TextEncoding,
    VaeFacts,
    Variant,
    WeightSources,
    format_manifest,
    parse_manifest,
)

SIZES = st.integers(1, 512)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
NAMES = WORDS.filter(str.strip)
PARTS = st.text(st.characters(whitelist_categories=("Ll", "Nd")), min_size=1, max_size=8)
RECORDS = st.builds(
    FileRecord,
    size=st.integers(0, 2**53),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
)
ROLES = [*get_args(Role)]
HIDDEN_STATES = ["last_hidden_state", "hidden_embeds"]
DTYPES = st.sampled_from(["float16", "float32", "int32"])
PORTS = st.builds(PortSpec, NAMES, st.lists(st.integers(1, 128), max_size=4).map(tuple), DTYPES)


def port_lists() -> st.SearchStrategy[tuple[PortSpec, ...]]:
    return st.lists(PORTS, max_size=3, unique_by=lambda port: port.name).map(tuple)


TIME_ID_COUNTS = {"none": 0, "size": 6, "aesthetic_score": 5}
CONDITIONING = st.builds(
    ConditioningFacts, st.sampled_from(sorted(TIME_ID_COUNTS)), st.booleans(), st.booleans()
)
CHANNELS = {"text-to-image": (1, 0), "inpainting": (2, 1), "instruct-pix2pix": (2, 0)}


def with_ports(ports: tuple[PortSpec, ...], *due: PortSpec) -> tuple[PortSpec, ...]:
    names = {port.name for port in due}
    return (*due, *(port for port in ports if port.name not in names))


def denoiser_ports(latent: LatentSize, task: str, conditioning: ConditioningFacts) -> list[PortSpec]:
    times, plus = CHANNELS[task]
    due = [PortSpec("sample", (2, times * latent.channels + plus, latent.height, latent.width), "float16")]
    if count := TIME_ID_COUNTS[conditioning.time_ids]:
        due += [PortSpec("time_ids", (2, count), "float16"), PortSpec("text_embeds", (2, 3), "float16")]
    if conditioning.guidance_embedding:
        due.append(PortSpec("timestep_cond", (2, 8), "float16"))
    return due


@st.composite
def variants(
    draw: st.DrawFn, label: str, role: str, size: PictureSize | None, due: list[PortSpec]
) -> Variant:
    """A network in one to three chunks: the first takes what is due, each passes something on to the next."""
    inputs, outputs = draw(port_lists()), draw(port_lists())
    if role == "denoiser":
        inputs = with_ports(inputs, *due)
    if role == "text_encoder":
        outputs = with_ports(outputs, *(PortSpec(name, (1, 77, 8), "float32") for name in HIDDEN_STATES))
    count = draw(st.integers(1, 3))
    if count > 1:  # in one piece a network may return what it takes under the same name
        taken = {port.name for port in inputs}
        outputs = tuple(port for port in outputs if port.name not in taken)
    passed = [PortSpec(f"\n{index}", (1, index + 1), "float16") for index in range(count - 1)]
    chunks = tuple(
        Chunk(
            f"{label}{index}.mlpackage",
            draw(st.none() | NAMES),
            inputs if index == 0 else (passed[index - 1], *draw(st.sampled_from([(), inputs[:1]]))),
            outputs if index == count - 1 else (passed[index],),
        )
        for index in range(count)
    )
    return Variant(None if size is None else size.image, chunks)


COMPRESSIONS = st.builds(
    Compression,
    st.sampled_from([("palettization",), ("pruning", "palettization"), ("quantization",)]),
    st.floats(0.01, 32),
    st.sampled_from([None, "scheduler/config.json"]),
)


@st.composite
def components(
    draw: st.DrawFn, index: int, role: str, sizes: list[PictureSize], due: dict[PictureSize, list[PortSpec]]
) -> BundleComponent:
    is_sized = role in SIZED_ROLES
    made_for = draw(st.lists(st.sampled_from(sizes), min_size=1, unique=True)) if is_sized else [None]
    return BundleComponent(
        name=f"{index} {draw(NAMES)}",
        role=role,
        variants=tuple(
            draw(variants(f"{index}{draw(PARTS)}{number}", role, size, due[size] if size else []))
            for number, size in enumerate(made_for)
        ),
        attention_implementation=draw(st.sampled_from([None, "ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"])),
        compression=draw(st.none() | COMPRESSIONS),
        compute_unit=draw(st.sampled_from(["ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE"])),
        deployment_target=draw(st.sampled_from(["macOS13", "iOS18"])),
    )


DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SOURCE_FILES = st.builds(SourceFile, PARTS, st.integers(0, 2**53), DIGESTS)
SCALES = st.floats(allow_nan=False, allow_infinity=False)
WEIGHTS = st.builds(
    WeightSources,
    st.dictionaries(PARTS, st.lists(SOURCE_FILES, max_size=2).map(tuple), max_size=2),
    st.lists(st.builds(MergedLora, SOURCE_FILES, SCALES, SCALES), max_size=2).map(tuple),
    st.lists(
        st.builds(AddedEmbedding, NAMES, SOURCE_FILES), max_size=2, unique_by=lambda added: added.token
    ).map(tuple),
    st.none() | st.builds(CustomVae, PARTS, st.lists(SOURCE_FILES, min_size=1, max_size=2).map(tuple)),
)


@st.composite
def picture_sizes(draw: st.DrawFn) -> list[PictureSize]:
    channels = draw(st.integers(1, 16))
    latents = st.builds(LatentSize, st.just(channels), st.integers(1, 128), st.integers(1, 128))
    sizes = st.builds(PictureSize, st.builds(ImageSize, SIZES, SIZES), latents)
    return draw(st.lists(sizes, min_size=1, max_size=3, unique_by=lambda size: size.image))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    sizes = draw(picture_sizes())
    task, conditioning = draw(st.sampled_from(sorted(CHANNELS))), draw(CONDITIONING)
    due = {size: denoiser_ports(size.latent, task, conditioning) for size in sizes}
    roles = draw(st.lists(st.sampled_from(ROLES), max_size=4))
    members = tuple(draw(components(index, role, sizes, due)) for index, role in enumerate(roles))
    encoders = draw(st.permutations([c.name for c in members if c.role == "text_encoder"]))
    files = {f"{package}/{draw(PARTS)}": draw(RECORDS) for c in members for package in c.packages}
    files |= {"scheduler/config.json": draw(RECORDS), "tokenizer/vocab.json": draw(RECORDS)}
    return Manifest(
        format="sd-bundle",
        version=3,
        model=ModelFacts(
            identifier=draw(NAMES),
            family=draw(st.sampled_from(["sd1", "sd2", "sdxl", "sdxl-refiner"])),
            task=task,
            denoiser=DenoiserFacts("unet", draw(st.sampled_from([None, "lcm"]))),
            prediction_type=draw(st.sampled_from(["epsilon", "v_prediction", "sample"])),
            scheduler="scheduler/config.json",
            sizes=tuple(sizes),
            vae=VaeFacts(
                draw(st.floats(1e-300, 1e300)),
                draw(st.floats(allow_nan=False, allow_infinity=False)),
                draw(st.sampled_from(["moments", "latents"])),
            ),
            text_encoders=tuple(
                TextEncoding(name, "tokenizer", draw(st.sampled_from(HIDDEN_STATES))) for name in encoders
            ),
            conditioning=conditioning,
            recipe=draw(st.none() | NAMES),
        ),
        components=members,
        provenance=Provenance(
            source=draw(PARTS),
            revision=draw(st.none() | st.text(max_size=8)),
            tools=draw(st.dictionaries(PARTS, PARTS, max_size=3)),
            created="2026-01-31T12:00:00Z",
            weights=draw(st.none() | WEIGHTS),
        ),
        files=files,
    )


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(manifests())
def test_what_is_written_is_read(manifest: Manifest) -> None:
    assert parse_manifest(format_manifest(manifest)) == manifest


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(manifests(), st.randoms())
def test_a_field_less_or_more_is_refused(manifest: Manifest, random: Any) -> None:
    document = json.loads(format_manifest(manifest))
    places = [document, document["model"], document["model"]["vae"], document["provenance"]]
    variants = [variant for component in document["components"] for variant in component["variants"]]
    chunks = [chunk for variant in variants for chunk in variant["chunks"]]
    weights = [weights] if (weights := document["provenance"]["weights"]) else []
    sizes = document["model"]["sizes"]
    place = random.choice(places + document["components"] + variants + chunks + weights + sizes)
    removed = random.choice(sorted(place))
    spoilt = place.pop(removed)
    with pytest.raises(ManifestError, match=rf"{removed}: expected"):
        parse_manifest(json.dumps(document))
    place[removed] = spoilt
    place["novelty"] = 1
    with pytest.raises(ManifestError, match=r"novelty: expected one of the fields"):
        parse_manifest(json.dumps(document))


@settings(max_examples=80, deadline=None)
@given(
    st.text(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats(), st.lists).map(json.dumps)
)
def test_anything_else_is_refused_as_a_manifest_error(text: str) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(text)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """The place of every value of a document, containers included."""
    if not isinstance(value, dict | list):
        return
    for key, member in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from leaves(member, (*path, key))


def fields(document: Any) -> list[tuple[Any, ...]]:
    """One place for each field, of the many that lists of one kind give."""
    kinds: dict[Any, tuple[Any, ...]] = {}
    for path in leaves(document):
        kinds.setdefault(tuple(0 if isinstance(key, int) else key for key in path), path)
    return list(kinds.values())


@pytest.mark.long
@settings(max_examples=6, deadline=None)
@given(manifests())
def test_every_field_with_every_type_is_read_or_a_manifest_error(manifest: Manifest) -> None:
    text = format_manifest(manifest)
    for path in fields(json.loads(text)):
        for other in (None, True, 0, -1.5, "", "x", [], {}, [[]], {"x": None}):
            document = place = json.loads(text)
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = other
            with suppress(ManifestError):  # and nothing else
                parse_manifest(json.dumps(document))


def test_an_integer_is_a_number() -> None:
    vae = dataclasses.replace(VaeFacts(1.0, 0.0, "latents"))
    text = '{"scaling_factor": 1, "shift_factor": 0, "encodes": "latents"}'
    from sd_bundle.schema import decode, parse_json

    assert decode(VaeFacts, parse_json(text)) == vae


@pytest.mark.parametrize(
    "source", ["/home/someone/model", "~/model", "./model", "../model", "C:\\model", "  "]
)
def test_provenance_is_no_machine_path(source: str) -> None:
    with pytest.raises(ManifestError, match="source"):
        Provenance.now(source, tools={})


def test_messages_stay_on_one_printable_line() -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest('{"format": "sd-bundle", "version": 3, "\\u001b[31m\\n": 1}')
    assert str(caught.value).isprintable()
