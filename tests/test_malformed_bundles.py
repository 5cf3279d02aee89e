"""Every folder of ``malformed/bundles`` is refused, with the reason one would want to read."""

from __future__ import annotations

from pathlib import Path

import pytest
from sd_bundle import BundleError, IntegrityError, ManifestError, open_bundle

CASES = Path(__file__).parent / "malformed" / "bundles"

EXPECTED: dict[str, tuple[type[BundleError], str]] = {
    "unknown_field": (ManifestError, "at $.model.clip_skip: expected one of the fields identifier"),
    "missing_field": (ManifestError, "at $.components[0].role: expected this field, got nothing"),
    "wrong_type": (ManifestError, "at $.model.sizes[0].latent.height: expected an integer, got '8'"),
    "boolean_as_integer": (ManifestError, "at $.model.sizes[0].latent.height: expected an integer, got True"),
    "unknown_role": (ManifestError, "at $.components[0].role: expected 'text_encoder' or"),
    "wrong_format": (ManifestError, "at $.format: expected 'sd-bundle', got 'something-else'"),
    "later_version": (ManifestError, "this bundle was written by a newer sdc: update to read it, got 4"),
    "version_as_float": (
        ManifestError,
        "at $.version: expected 1, 2 or 3, which this sd-bundle reads, got 3.0",
    ),
    "not_an_object": (ManifestError, "at $: expected an object, got []"),
    "empty_manifest": (ManifestError, "at $: expected a JSON document, got Expecting value at line 1"),
    "truncated_json": (ManifestError, "at $: expected a JSON document, got Expecting"),
    "duplicate_keys": (ManifestError, "expected every key once, got 'version' twice"),
    "not_a_number": (ManifestError, "expected finite numbers, got NaN"),
    "infinite_number": (ManifestError, "expected finite numbers, got 1e999"),
    "huge_integer": (ManifestError, "expected integers up to 2**53, got 9999"),
    "deep_nesting": (ManifestError, "expected a JSON document, got one nested too deeply"),
    "negative_size": (ManifestError, "at $.model.sizes[0].image.width: expected a positive size, got -64"),
    "huge_shape": (
        ManifestError,
        "variants[0].chunks[0].outputs[0].shape: expected at most",
    ),
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
    "package_outside": (
        ManifestError,
        "variants[0].chunks[0].package: expected a relative POSIX path",
    ),
    "package_unlisted": (
        ManifestError,
        "at $.components[0].variants[0].chunks[0].package: expected a folder with files",
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
        "chunks[0].inputs: expected an input 'sample' of shape [batch, 9, 8, 8] for inpainting",
    ),
    "time_ids_without_a_port": (ManifestError, "expected inputs 'time_ids' of shape [batch, 6]"),
    "time_ids_of_another_length": (ManifestError, "expected inputs 'time_ids' of shape [batch, 6]"),
    "time_ids_without_meaning": (ManifestError, "expected no input 'time_ids', as $.model.conditioning"),
    "guidance_embedding_without_a_port": (
        ManifestError,
        "expected an input 'timestep_cond', as $.model.conditioning has it",
    ),
    "no_sizes": (ManifestError, "at $.model.sizes: expected at least one size"),
    "two_sizes_alike": (ManifestError, "at $.model.sizes: expected distinct names, got '64x64' twice"),
    "sizes_of_two_models": (
        ManifestError,
        "at $.model.sizes[1].latent.channels: expected 4, as in",
    ),
    "latent_of_no_array": (ManifestError, "at $.model.sizes[0].latent: expected at most 2147483648 elements"),
    "unknown_denoiser": (
        ManifestError,
        "at $.model.denoiser.architecture: expected 'unet'",
    ),
    "no_variant": (ManifestError, "at $.components[0].variants: expected at least one variant"),
    "no_chunk": (ManifestError, "at $.components[0].variants[0].chunks: expected at least one chunk"),
    "denoiser_of_no_size": (
        ManifestError,
        "at $.components[0].variants[0].size: expected a size for the role denoiser, got None",
    ),
    "denoiser_of_another_size": (
        ManifestError,
        "at $.components[0].variants[0].size: expected a size of $.model.sizes (64x64), got '64x32'",
    ),
    "two_variants_of_one_size": (
        ManifestError,
        "at $.components[0].variants: expected distinct names, got '64x64, batch 2' twice",
    ),
    "one_chunk_twice": (
        ManifestError,
        "at $.components[0].variants[0].chunks: expected distinct names, got 'tiny_unet.mlpackage' twice",
    ),
    "chunks_that_do_not_fit": (
        ManifestError,
        "variants[0].chunks[1].inputs: expected 'hidden' of shape [2, 8, 8, 8], as in an earlier chunk",
    ),
    "chunks_that_return_one_name": (
        ManifestError,
        "variants[0].chunks[1].outputs: expected outputs that no chunk has yet as a port, got 'sample'",
    ),
    "unknown_compression": (ManifestError, "compression.methods[0]: expected 'palettization' or"),
    "compression_by_nothing": (ManifestError, "compression.methods: expected at least one method"),
    "bits_per_weight_of_none": (ManifestError, "compression.bits_per_weight: expected more than 0, up to 32"),
    "recipe_unlisted": (ManifestError, "compression.recipe: expected a file that $.files lists"),
    "lora_without_sha256": (ManifestError, "at $.provenance.weights.loras[0].file.sha256: expected 64"),
    "lora_from_a_machine": (ManifestError, "weights.loras[0].file.name: expected a name, not a path"),
    "two_embeddings_of_one_token": (
        ManifestError,
        "at $.provenance.weights.embeddings: expected distinct names, got 'style' twice",
    ),
    "vae_without_files": (ManifestError, "at $.provenance.weights.vae.files: expected at least one file"),
    "weight_file_of_negative_size": (
        ManifestError,
        "at $.provenance.weights.files.unet[0].size: expected a number of bytes, got -1",
    ),
    "version_1_with_a_field_of_version_2": (
        ManifestError,
        "at $.model.denoiser: expected one of the fields identifier",
    ),
    "version_1_without_a_field": (ManifestError, "at $.compression: expected this field, got nothing"),
    "version_1_latent_contradicts_ports": (
        ManifestError,
        "at $.components[0].inputs: expected an input 'sample' of shape [batch, 4, 16, 8]",
    ),
    "version_1_package_unlisted": (
        ManifestError,
        "at $.components[0].package: expected a folder with files",
    ),
    "version_2_with_a_field_of_version_1": (ManifestError, "at $.compression: expected one of the fields"),
    "version_2_with_a_field_of_version_3": (ManifestError, "at $.model.recipe: expected no such field"),
    "version_2_with_two_forms": (ManifestError, "at $.components[0].variants: expected each size once"),
    "two_variants_of_one_form": (ManifestError, "at $.components[0].variants: expected distinct names"),
    "recipe_without_a_name": (ManifestError, "at $.model.recipe: expected"),
    "missing_file": (IntegrityError, "scheduler/more.json: expected a file of 62 bytes, got nothing"),
    "file_is_a_folder": (IntegrityError, "empty: expected a file of 62 bytes, got a folder"),
    "wrong_size": (IntegrityError, "scheduler_config.json: expected 1 bytes, got 62"),
    "link_out": (ManifestError, "at $.files.scheduler/linked.json: expected a file inside the bundle"),
    "wrong_content": (IntegrityError, "scheduler/scheduler_config.json: expected sha256"),
    "missing_manifest": (BundleError, "expected manifest.json in"),
    "not_utf8": (ManifestError, "at $: expected UTF-8 text, got byte 0xff"),
}


@pytest.mark.parametrize("case", ["valid", "version_1", "version_2"])
def test_the_sound_one_opens(case: str) -> None:
    bundle = open_bundle(CASES / case)
    bundle.check_integrity()
    assert bundle.manifest.model.identifier == "org/tiny"


def test_every_case_is_expected() -> None:
    assert {path.name for path in CASES.iterdir()} == {"valid", "version_1", "version_2", *EXPECTED}


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
