"""The manifest: what is written is what is read, whatever it says."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from sd_bundle import (
    BundleComponent,
    ConditioningFacts,
    FileRecord,
    ImageSize,
    LatentSize,
    Manifest,
    ManifestError,
    ModelFacts,
    PortSpec,
    Provenance,
    TextEncoding,
    VaeFacts,
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
ROLES = ["text_encoder", "denoiser", "image_decoder", "image_encoder", "safety_checker"]
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
def components(draw: st.DrawFn, index: int, role: str, due: list[PortSpec]) -> BundleComponent:
    inputs, outputs = draw(port_lists()), draw(port_lists())
    if role == "denoiser":
        inputs = with_ports(inputs, *due)
    if role == "text_encoder":
        outputs = with_ports(outputs, *(PortSpec(name, (1, 77, 8), "float32") for name in HIDDEN_STATES))
    return BundleComponent(
        name=f"{index} {draw(NAMES)}",
        role=role,
        package=f"{index}{draw(PARTS)}.mlpackage",
        inputs=inputs,
        outputs=outputs,
        attention_implementation=draw(st.sampled_from([None, "ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"])),
        compute_unit=draw(st.sampled_from(["ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE"])),
        deployment_target=draw(st.sampled_from(["macOS13", "iOS18"])),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    latent = LatentSize(draw(st.integers(1, 16)), draw(st.integers(1, 128)), draw(st.integers(1, 128)))
    task, conditioning = draw(st.sampled_from(sorted(CHANNELS))), draw(CONDITIONING)
    due = denoiser_ports(latent, task, conditioning)
    roles = draw(st.lists(st.sampled_from(ROLES), max_size=4))
    members = tuple(draw(components(index, role, due)) for index, role in enumerate(roles))
    encoders = draw(st.permutations([c.name for c in members if c.role == "text_encoder"]))
    files = {f"{c.package}/{draw(PARTS)}": draw(RECORDS) for c in members}
    files |= {"scheduler/config.json": draw(RECORDS), "tokenizer/vocab.json": draw(RECORDS)}
    return Manifest(
        format="sd-bundle",
        version=1,
        model=ModelFacts(
            identifier=draw(NAMES),
            family=draw(st.sampled_from(["sd1", "sd2", "sdxl", "sdxl-refiner"])),
            task=task,
            prediction_type=draw(st.sampled_from(["epsilon", "v_prediction", "sample"])),
            scheduler="scheduler/config.json",
            latent=latent,
            image=ImageSize(draw(SIZES), draw(SIZES)),
            vae=VaeFacts(
                draw(st.floats(1e-300, 1e300)),
                draw(st.floats(allow_nan=False, allow_infinity=False)),
                draw(st.sampled_from(["moments", "latents"])),
            ),
            text_encoders=tuple(
                TextEncoding(name, "tokenizer", draw(st.sampled_from(HIDDEN_STATES))) for name in encoders
            ),
            conditioning=conditioning,
        ),
        components=members,
        compression="none",
        provenance=Provenance(
            source=draw(PARTS),
            revision=draw(st.none() | st.text(max_size=8)),
            tools=draw(st.dictionaries(PARTS, PARTS, max_size=3)),
            created="2026-01-31T12:00:00Z",
        ),
        files=files,
    )


@settings(max_examples=60, deadline=None)
@given(manifests())
def test_what_is_written_is_read(manifest: Manifest) -> None:
    assert parse_manifest(format_manifest(manifest)) == manifest


@settings(max_examples=60, deadline=None)
@given(manifests(), st.randoms())
def test_a_field_less_or_more_is_refused(manifest: Manifest, random: Any) -> None:
    document = json.loads(format_manifest(manifest))
    places = [document, document["model"], document["model"]["vae"], document["provenance"]]
    place = random.choice(places + document["components"])
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


@settings(max_examples=10, deadline=None)
@given(manifests())
def test_every_field_with_every_type_is_read_or_a_manifest_error(manifest: Manifest) -> None:
    text = format_manifest(manifest)
    for path in leaves(json.loads(text)):
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
        parse_manifest('{"format": "sd-bundle", "version": 1, "\\u001b[31m\\n": 1}')
    assert str(caught.value).isprintable()
