"""From a checkpoint to a bundle that says the same, and nothing left behind when that fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.numpy import load_file, save_file
from sd_bundle import IntegrityError, OutputExistsError, open_bundle
from sd_convert import (
    ATTENTION_IMPLEMENTATIONS,
    Checkpoint,
    ConversionCache,
    ConversionOptions,
    ConversionReport,
    IncompleteCheckpointError,
    OptionsError,
    Progress,
    VerificationError,
    convert,
    open_checkpoint,
    plan,
    sample_inputs,
    verify,
)
from sd_convert.components import build_component
from sd_mil import read_package

pytestmark = pytest.mark.long

COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
MACHINE = sys.modules["sd_convert.conversion.convert"]  # the package has a function of the same name
UNET_ONLY = ConversionOptions(components=("unet",))


@pytest.fixture(scope="module")
def checkpoint(_tiny_fp16: Path) -> Checkpoint:
    return open_checkpoint(_tiny_fp16)


@pytest.fixture(scope="module")
def events() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ConversionCache:
    """The programs of all four components, for tests of what comes after them."""
    return ConversionCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def report(
    checkpoint: Checkpoint,
    events: list[Progress],
    cache: ConversionCache,
    tmp_path_factory: pytest.TempPathFactory,
) -> ConversionReport:
    """All four components, converted once."""
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    return convert(checkpoint, path, progress=events.append, cache=cache)


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_bundle_is_sound_and_has_all_four(report: ConversionReport) -> None:
    bundle = open_bundle(report.bundle)
    bundle.check_integrity()
    assert tuple(component.name for component in bundle.manifest.components) == COMPONENTS
    for component in bundle.manifest.components:
        assert component.package == f"Stable_Diffusion_version_tiny_{component.name}.mlpackage"


def test_the_manifest_says_what_the_configs_say(report: ConversionReport) -> None:
    model = open_bundle(report.bundle).manifest.model
    assert (model.identifier, model.family, model.prediction_type) == ("tiny", "sd1", "epsilon")
    assert (model.latent.channels, model.latent.height, model.latent.width) == (4, 8, 8)
    assert (model.image.height, model.image.width) == (16, 16)
    assert (model.vae.scaling_factor, model.vae.shift_factor) == (0.18215, 0.0)
    assert [encoding.component for encoding in model.text_encoders] == ["text_encoder"]


def test_manifest_and_packages_agree_on_ports_and_attention(report: ConversionReport) -> None:
    bundle = open_bundle(report.bundle)
    for component in bundle.manifest.components:
        package = read_package(bundle.package(component))
        for ours, theirs in (
            (component.inputs, package.description.inputs),
            (component.outputs, package.description.outputs),
        ):
            assert [(p.name, p.shape, p.dtype) for p in ours] == [(p.name, p.shape, p.dtype) for p in theirs]
        kinds = {operation.type for operation in package.program.operations()}
        assert ("einsum" in kinds) == (component.attention_implementation == "SPLIT_EINSUM")


def test_tokenizer_and_scheduler_come_with_it(report: ConversionReport, checkpoint: Checkpoint) -> None:
    for file in (*checkpoint.tokenizers["tokenizer"], checkpoint.folder / "scheduler/scheduler_config.json"):
        assert (report.bundle / file.relative_to(checkpoint.folder)).read_bytes() == file.read_bytes()


def test_the_report_counts_bytes_and_seconds(report: ConversionReport, events: list[Progress]) -> None:
    for component in report.components:
        package = report.bundle / component.package
        assert component.bytes == sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
        assert 0 < component.seconds < report.seconds
    for name in COMPONENTS:  # one is written while the next one is at work, the largest first
        assert [event.report is not None for event in events if event.component == name] == [False, True]
    assert [event.index for event in events if event.report is not None] == [0, 1, 2, 3]


def test_every_output_equals_torch(report: ConversionReport, checkpoint: Checkpoint) -> None:
    verification = verify(report.bundle, checkpoint)
    assert {(row.component, row.output) for row in verification.rows} == {
        ("text_encoder", "last_hidden_state"),
        ("text_encoder", "pooled_outputs"),
        ("unet", "noise_pred"),
        ("vae_decoder", "image"),
        ("vae_encoder", "latent"),
    }
    assert min(row.psnr for row in verification.rows) > 50
    assert verification.passed
    assert "fp32" in verification.arithmetic


def test_original_attention_equals_torch(checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = ConversionOptions(components=("unet",), attention_implementation="ORIGINAL", latent_height=12)
    convert(checkpoint, tmp_path / "bundle", options)
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.manifest.components[0].compute_unit == "CPU_AND_GPU"
    assert bundle.manifest.model.text_encoders == ()
    assert verify(tmp_path / "bundle", checkpoint).rows[0].psnr > 50


@pytest.mark.parametrize(
    ("dtype", "variant", "shard"),
    [(torch.float32, None, "1GB"), (torch.bfloat16, "bf16", "1GB"), (torch.float16, "fp16", "50KB")],
)
def test_every_kind_of_file_converts(
    dtype: torch.dtype,
    variant: str | None,
    shard: str,
    tiny_models: Any,
    tmp_path: Path,
    cache: ConversionCache,
) -> None:
    checkpoint = open_checkpoint(
        tiny_models.save(tmp_path / "saved", dtype=dtype, variant=variant, shard=shard),
        components=["vae_encoder"],
    )
    convert(checkpoint, tmp_path / "bundle", cache=cache)
    assert verify(tmp_path / "bundle", checkpoint).rows[0].psnr > 50


def test_the_text_encoder_of_sd_1_5_whose_config_states_a_wrong_end_token(
    edit_config: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(edit_config("text_encoder", eos_token_id=2), components=["text_encoder"])
    convert(checkpoint, tmp_path / "bundle")
    assert min(row.psnr for row in verify(tmp_path / "bundle", checkpoint).rows) > 50


@pytest.mark.parametrize("attention", ATTENTION_IMPLEMENTATIONS)
def test_a_unet_of_the_shape_of_sd_2(attention: str, tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=[8, 12],
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(4, 8),
        norm_num_groups=16,
        use_linear_projection=True,
    )
    unet.half().save_pretrained(tiny / "unet", variant="fp16")
    checkpoint = open_checkpoint(tiny, components=["unet"])
    target = "macOS15" if attention == "SDPA" else "macOS13"
    options = ConversionOptions(attention_implementation=attention, target=target)
    convert(checkpoint, tmp_path / "bundle", options)
    model = open_bundle(tmp_path / "bundle").manifest.model
    assert (model.family, model.image.height, model.image.width) == ("sd2", 16, 24)
    assert verify(tmp_path / "bundle", checkpoint).rows[0].psnr > 50


def damage_one_weight(folder: Path) -> Path:
    path = folder / "vae/diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_out.weight"] = -tensors["decoder.conv_out.weight"]
    save_file(tensors, path)
    return folder


def test_other_weights_do_not_pass(report: ConversionReport, tiny: Path) -> None:
    other = open_checkpoint(damage_one_weight(tiny))
    verification = verify(report.bundle, other, components=["vae_decoder"])
    assert not verification.passed
    assert verification.rows[0].max_error > 0.01


def test_a_threshold_is_a_threshold(report: ConversionReport, checkpoint: Checkpoint) -> None:
    assert not verify(report.bundle, checkpoint, components=["vae_encoder"], min_psnr=1000).passed


def test_a_changed_file_is_found_before_anything_runs(
    checkpoint: Checkpoint, cache: ConversionCache, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "bundle", UNET_ONLY, cache=cache)
    path = next((tmp_path / "bundle").rglob("weight.bin"))
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"weight\.bin"):
        verify(tmp_path / "bundle", checkpoint)


def test_a_bundle_of_another_architecture_cannot_be_compared(
    report: ConversionReport, edit_config: Callable[..., Path]
) -> None:
    other = open_checkpoint(edit_config("text_encoder", max_position_embeddings=64), components=["unet"])
    with pytest.raises(VerificationError, match="another checkpoint"):
        verify(report.bundle, other, components=["unet"])


def test_components_that_the_checkpoint_was_not_opened_with(report: ConversionReport, tiny: Path) -> None:
    with pytest.raises(VerificationError, match="text_encoder"):
        verify(report.bundle, open_checkpoint(tiny, components=["unet"]))


def test_a_manifest_that_would_draw_otherwise_is_refused(report: ConversionReport, tiny: Path) -> None:
    """The networks are equal; what the sampler is told of them is not."""
    other = open_checkpoint(tiny, prediction_type="v_prediction")
    with pytest.raises(VerificationError, match=r"prediction_type to be 'v_prediction'.*got 'epsilon'"):
        verify(report.bundle, other)


def test_samples_are_seeded_and_fit_the_ports(checkpoint: Checkpoint) -> None:
    for name in COMPONENTS:
        component = build_component(name, checkpoint, ConversionOptions())
        first, again, other = (sample_inputs(component, checkpoint, seed=seed) for seed in (1, 1, 2))
        for port in component.inputs:
            assert (first[port.name].shape, first[port.name].dtype) == (port.shape, port.dtype)
            np.testing.assert_array_equal(first[port.name], again[port.name])
        assert any(not np.array_equal(first[port.name], other[port.name]) for port in component.inputs)


def test_a_plan_is_what_then_happens(checkpoint: Checkpoint, report: ConversionReport) -> None:
    planned = plan(checkpoint)
    entries = open_bundle(report.bundle).manifest.components
    assert [(c.name, c.package) for c in planned.components] == [(e.name, e.package) for e in entries]
    for component, done in zip(planned.components, report.components, strict=True):
        weights = (report.bundle / done.package).rglob("weight.bin")
        assert component.package_bytes == pytest.approx(
            sum(file.stat().st_size for file in weights), rel=0.35
        )


def test_a_plan_estimates_memory_by_the_largest_tensor_not_by_the_sum(
    checkpoint: Checkpoint,
) -> None:
    narrow = plan(checkpoint, ConversionOptions(components=("vae_encoder",))).memory_bytes
    wide = plan(checkpoint, ConversionOptions(components=("vae_encoder", "unet"))).memory_bytes
    unet = max(entry.bytes for entry in checkpoint.weights("unet").entries.values())
    vae = max(entry.bytes for entry in checkpoint.weights("vae_encoder").entries.values())
    assert wide - narrow == 2 * (unet - vae)


def test_a_plan_refuses_what_a_conversion_refuses(edit_config: Callable[..., Path]) -> None:
    with pytest.raises(OptionsError, match="vae_decoder"):
        plan(
            open_checkpoint(edit_config("unet"), components=["unet"]),
            ConversionOptions(components=("vae_decoder",)),
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"components": ("refiner",)}, "components: expected those of tiny as opened"),
        ({"compute_precision": ("vae=fp16",)}, "compute_precision: expected one of text_encoder"),
    ],
)
def test_a_plan_refuses_options_for_a_component_that_there_is_not(
    wrong: dict[str, Any], said: str, checkpoint: Checkpoint
) -> None:
    with pytest.raises(OptionsError, match=said):
        plan(checkpoint, ConversionOptions(**wrong))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_nothing(
    error: type[BaseException],
    checkpoint: Checkpoint,
    cache: ConversionCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_at_second_component(error, monkeypatch)
    with pytest.raises(error):
        convert(checkpoint, tmp_path / "new" / "bundle", cache=cache)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_the_previous_bundle(
    error: type[BaseException],
    checkpoint: Checkpoint,
    cache: ConversionCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "bundle"
    convert(checkpoint, output, ConversionOptions(components=("vae_encoder",)), cache=cache)
    before = listing(tmp_path)
    stop_at_second_component(error, monkeypatch)
    with pytest.raises(error):
        convert(checkpoint, output, ConversionOptions(overwrite=True), cache=cache)
    assert listing(tmp_path) == before


def stop_at_second_component(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    original = MACHINE._Work._write

    def write(work: Any, program: Any, paths: tuple[Path, ...], check: Any) -> object:
        (path,) = paths
        if path.name.endswith("_vae_decoder.mlpackage"):
            path.mkdir()
            (path / "half").write_bytes(b"written")
            raise error
        return original(work, program, paths, check)

    monkeypatch.setattr(MACHINE._Work, "_write", write)


def test_an_output_that_exists_is_refused_before_any_work(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MACHINE._Work, "_write", None)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/mine.txt").write_text("mine")
    for overwrite in (False, True):  # what is no bundle is not even overwritten
        with pytest.raises(OutputExistsError):
            convert(checkpoint, tmp_path / "bundle", ConversionOptions(overwrite=overwrite))
    assert listing(tmp_path) == {"bundle/mine.txt": b"mine"}


def test_overwriting_replaces_the_whole_bundle(
    checkpoint: Checkpoint, tmp_path: Path, cache: ConversionCache
) -> None:
    output = tmp_path / "bundle"
    convert(checkpoint, output, ConversionOptions(components=("vae_encoder",)), cache=cache)
    convert(checkpoint, output, ConversionOptions(components=("vae_decoder",), overwrite=True), cache=cache)
    assert [component.name for component in open_bundle(output).manifest.components] == ["vae_decoder"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("missing", ["scheduler", "tokenizer"])
def test_files_that_a_bundle_needs(missing: str, tiny: Path, tmp_path: Path) -> None:
    for file in (tiny / missing).iterdir():
        file.unlink()
    with pytest.raises(IncompleteCheckpointError, match=missing):
        convert(open_checkpoint(tiny), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"components": ()},
        {"components": ("unet", "unet")},
        {"attention_implementation": "FLASH"},
        {"compute_unit": "GPU"},
        {"latent_height": 0},
        {"target": "macOS12"},
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match=f"{next(iter(wrong))}: expected"):
        ConversionOptions(**wrong)  # type: ignore[arg-type]


def test_provenance_names_the_checkpoint_but_no_path(
    report: ConversionReport, checkpoint: Checkpoint
) -> None:
    text = (report.bundle / "manifest.json").read_text()
    assert json.loads(text)["provenance"]["source"] == "tiny"
    assert str(checkpoint.folder.parent) not in text
