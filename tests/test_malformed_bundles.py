"""Every folder of ``malformed/bundles`` is refused, with the reason one would want to read."""

from __future__ import annotations

from pathlib import Path

import pytest
from sd_bundle import BundleError, IntegrityError, ManifestError, open_bundle

CASES = Path(__file__).parent / "malformed" / "bundles"

EXPECTED: dict[str, tuple[type[BundleError], str]] = {
    "unknown_field": (ManifestError, "at $.model.clip_skip: expected one of the fields identifier"),
    "missing_field": (ManifestError, "at $.components[0].role: expected this field, got nothing"),
    "wrong_type": (ManifestError, "at $.model.latent.height: expected an integer, got '8'"),
    "boolean_as_integer": (ManifestError, "at $.model.latent.height: expected an integer, got True"),
    "unknown_role": (ManifestError, "at $.components[0].role: expected 'text_encoder' or"),
    "wrong_format": (ManifestError, "at $.format: expected 'sd-bundle', got 'something-else'"),
    "later_version": (ManifestError, "at $.version: expected 1, the one that this sd-bundle reads"),
    "version_as_float": (ManifestError, "at $.version: expected 1"),
    "not_an_object": (ManifestError, "at $: expected an object, got []"),
    "empty_manifest": (ManifestError, "at $: expected a JSON document, got Expecting value at line 1"),
    "truncated_json": (ManifestError, "at $: expected a JSON document, got Expecting"),
    "duplicate_keys": (ManifestError, "expected every key once, got 'version' twice"),
    "not_a_number": (ManifestError, "expected finite numbers, got NaN"),
    "infinite_number": (ManifestError, "expected finite numbers, got 1e999"),
    "huge_integer": (ManifestError, "expected integers up to 2**53, got 9999"),
    "deep_nesting": (ManifestError, "expected a JSON document, got one nested too deeply"),
    "negative_size": (ManifestError, "at $.model.image.width: expected a positive size, got -64"),
    "huge_shape": (ManifestError, "at $.components[0].outputs[0].shape: expected at most"),
    "zero_scaling_factor": (
        ManifestError,
        "at $.model.vae.scaling_factor: expected a positive number",
    ),
    "absolute_path": (ManifestError, "at $.files./etc/hostname: expected a relative POSIX path"),
    "parent_path": (ManifestError, "expected a relative POSIX path"),
    "backslash_path": (ManifestError, "expected a relative POSIX path"),
    "drive_path": (ManifestError, "expected a relative POSIX path"),
    "dot_path": (ManifestError, "expected a relative POSIX path"),
    "paths_that_differ_in_case": (ManifestError, "at $.files: expected distinct names"),
    "package_outside": (ManifestError, "at $.components[0].package: expected a relative POSIX path"),
    "package_unlisted": (
        ManifestError,
        "at $.components[0].package: expected a folder with files",
    ),
    "scheduler_unlisted": (ManifestError, "at $.model.scheduler: expected a file that $.files lists"),
    "machine_path_as_source": (ManifestError, "at $.provenance.source: expected a hub id or a folder's name"),
    "bad_sha256": (ManifestError, "sha256: expected 64 lower-case hexadecimal digits"),
    "two_components_of_one_name": (
        ManifestError,
        "at $.components: expected distinct names",
    ),
    "latent_contradicts_ports": (ManifestError, "expected an input 'sample' of shape [batch, 4, 16, 8]"),
    "text_encoder_unknown": (
        ManifestError,
        "at $.model.text_encoders: expected each component",
    ),
    "hidden_states_not_an_output": (
        ManifestError,
        "at $.model.text_encoders[0].hidden_states: expected 'hidden_embeds' among the component's outputs",
    ),
    "unknown_task": (ManifestError, "at $.model.task: expected 'text-to-image' or"),
    "task_contradicts_channels": (
        ManifestError,
        "at $.components[0].inputs: expected an input 'sample' of shape [batch, 9, 8, 8] for inpainting",
    ),
    "time_ids_without_a_port": (ManifestError, "expected inputs 'time_ids' of shape [batch, 6]"),
    "time_ids_of_another_length": (ManifestError, "expected inputs 'time_ids' of shape [batch, 6]"),
    "time_ids_without_meaning": (ManifestError, "expected no input 'time_ids', as $.model.conditioning"),
    "guidance_embedding_without_a_port": (
        ManifestError,
        "expected an input 'timestep_cond', as $.model.conditioning has it",
    ),
    "missing_file": (IntegrityError, "scheduler/more.json: expected a file of 62 bytes, got nothing"),
    "file_is_a_folder": (IntegrityError, "empty: expected a file of 62 bytes, got a folder"),
    "wrong_size": (IntegrityError, "scheduler_config.json: expected 1 bytes, got 62"),
    "link_out": (ManifestError, "at $.files.scheduler/linked.json: expected a file inside the bundle"),
    "wrong_content": (IntegrityError, "scheduler/scheduler_config.json: expected sha256"),
    "missing_manifest": (BundleError, "expected manifest.json in"),
    "not_utf8": (ManifestError, "at $: expected UTF-8 text, got byte 0xff"),
}


def test_the_sound_one_opens() -> None:
    bundle = open_bundle(CASES / "valid")
    bundle.check_integrity()
    assert bundle.manifest.model.identifier == "org/tiny"


def test_every_case_is_expected() -> None:
    assert {path.name for path in CASES.iterdir()} == {"valid", *EXPECTED}


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_refused(case: str) -> None:
    kind, part = EXPECTED[case]
    with pytest.raises(BundleError) as caught:
        open_bundle(CASES / case).check_integrity()
    assert type(caught.value) is kind
    assert part in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="got a file"):
        open_bundle(tmp_path / "file")
    with pytest.raises(BundleError, match="got nothing"):
        open_bundle(tmp_path / "absent")
