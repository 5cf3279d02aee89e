"""Each command does what it says, started as a person would start it."""

import json

import numpy as np
import pytest
from PIL import Image
from sd_runtime import open_bundle, read_settings
from sdc.demo.conditioned import draw_conditioned, wanted_pictures

PROMPT = "a red circle on a blue background"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_help_lists_the_commands(sdc):
    done = sdc("--help")
    assert done.status == 0
    assert all(name in done.out for name in ("convert", "demo", "generate", "inspect", "verify"))


def test_convert_says_what_it_did(sdc, checkpoint, tmp_path):
    done = sdc(
        "convert",
        checkpoint,
        "-o",
        tmp_path / "b",
        "--components",
        "vae_decoder,unet",
        "--compute-unit",
        "ALL",
    )
    assert done.status == 0, done.err
    manifest = open_bundle(tmp_path / "b").manifest
    assert sorted(part.name for part in manifest.components) == ["unet", "vae_decoder"]
    assert {part.compute_unit for part in manifest.components} == {"ALL"}
    assert "unet" in done.out
    assert "peak memory" in done.out


def test_dry_run_writes_nothing(sdc, checkpoint, tmp_path):
    done = sdc("convert", checkpoint, "-o", tmp_path / "b", "--dry-run")
    assert done.status == 0, done.err
    assert "-> noise_pred: float32[2, 4, 16, 16]" in done.out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_the_ports_that_were_asked_for(sdc, checkpoint, tmp_path):
    arguments = ("--unet-support-controlnet", "--unet-batch-one", "--text-token-sequence-length", "20")
    done = sdc("convert", checkpoint, "-o", tmp_path / "b", "--dry-run", *arguments)
    assert done.status == 0, done.err
    assert "additional_residual_0: float16[1, " in done.out
    assert "input_ids: float32[1, 20]" in done.out
    assert "-> noise_pred: float32[1, 4, 16, 16]" in done.out


def test_convert_checks_itself_when_asked(sdc, checkpoint, tmp_path):
    arguments = ("--components", "text_encoder", "--check-output-correctness")
    done = sdc("convert", checkpoint, "-o", tmp_path / "b", *arguments)
    assert done.status == 0, done.err
    assert "passed" in done.out
    assert "last_hidden_state" in done.out


@pytest.mark.parametrize(("attention", "einsums"), [("ORIGINAL", 0), ("SPLIT_EINSUM", 1)])
def test_attention_shows_in_the_operations(sdc, checkpoint, tmp_path, attention, einsums):
    arguments = (
        "--components",
        "unet",
        "--attention-implementation",
        attention,
        "--latent-h",
        24,
        "--latent-w",
        8,
    )
    assert sdc("convert", checkpoint, "-o", tmp_path / "b", *arguments).status == 0
    facts = json.loads(sdc("inspect", tmp_path / "b", "--json").out)
    (unet,) = facts["packages"]
    assert (unet["operations"].get("einsum", 0) > 0) == bool(einsums)
    assert ("sample", [2, 4, 24, 8], "float16") in [
        (port["name"], port["shape"], port["dtype"]) for port in unet["inputs"]
    ]


def test_verify_prints_every_output(sdc, converted, checkpoint):
    done = sdc("verify", converted, "--against", checkpoint)
    assert done.status == 0, done.err
    assert all(
        name in done.out for name in ("noise_pred", "last_hidden_state", "pooled_outputs", "image", "latent")
    )
    assert "OpenVINO" in done.out


def test_verify_fails_below_the_threshold(sdc, converted, checkpoint):
    done = sdc("verify", converted, "--against", checkpoint, "--min-psnr", 1000, "--json")
    report = json.loads(done.out)
    assert done.status == 1
    assert not report["passed"]
    assert min(row["psnr"] for row in report["rows"]) > 35


def test_verify_sees_a_changed_weight(sdc, bundle, checkpoint):
    """One wrong weight file: the sizes fit, the content does not."""
    (weights,) = bundle.glob("*vae_decoder.mlpackage/**/weight.bin")
    content = bytearray(weights.read_bytes())
    content[-4096:] = bytes(4096)
    weights.write_bytes(content)
    done = sdc("verify", bundle, "--against", checkpoint)
    assert done.status == 1
    assert "sha256" in done.err


def test_generate_writes_a_png_that_knows_its_settings(sdc, converted, tmp_path):
    arguments = ("--num-inference-steps", 2, "--seed", 7, "--scheduler", "euler", "--rng", "torch")
    done = sdc(
        "generate", PROMPT, "-i", converted, "-o", tmp_path / "x.png", *arguments, "--negative-prompt", "blue"
    )
    assert done.status == 0, done.err
    settings = read_settings(tmp_path / "x.png")
    assert (settings.prompt, settings.negative_prompt, settings.seed) == (PROMPT, "blue", 7)
    assert (settings.scheduler, settings.rng, settings.num_inference_steps) == ("euler", "torch", 2)
    assert pixels(tmp_path / "x.png").shape == (128, 128, 3)


def test_images_of_one_call_can_be_drawn_again_alone(sdc, converted, tmp_path):
    steps = ("--num-inference-steps", 2)
    assert (
        sdc("generate", PROMPT, "-i", converted, "-o", tmp_path / "x.png", *steps, "--image-count", 2).status
        == 0
    )
    assert (
        sdc("generate", PROMPT, "-i", converted, "-o", tmp_path / "y.png", *steps, "--seed", 94).status == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-93.png", "x-94.png", "y.png"]
    np.testing.assert_array_equal(pixels(tmp_path / "x-94.png"), pixels(tmp_path / "y.png"))


@pytest.mark.filterwarnings("default::sd_runtime.PromptTruncatedWarning")
def test_a_long_prompt_is_cut_with_a_warning(sdc, converted, tmp_path):
    prompt = "red " * 90 + "elephant"
    done = sdc("generate", prompt, "-i", converted, "-o", tmp_path / "x.png", "--num-inference-steps", 1)
    assert done.status == 0
    assert "warning" in done.err
    assert "elephant" in done.err


def test_inspect_prints_ports_operations_and_weights(sdc, converted):
    done = sdc("inspect", converted)
    assert done.status == 0, done.err
    assert "noise_pred" in done.out
    assert "einsum" in done.out
    (package,) = converted.glob("*vae_decoder.mlpackage")
    facts = json.loads(sdc("inspect", package, "--json").out)
    (port,) = facts["outputs"]
    assert (port["name"], port["shape"], port["dtype"]) == ("image", [1, 3, 128, 128], "float32")
    stored = (package / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert 0.9 * stored < sum(row["bytes"] for row in facts["weights"]) <= stored


def test_inspect_says_all_about_one_model(sdc, converted):
    (package,) = converted.glob("*vae_decoder.mlpackage")
    facts = json.loads(sdc("inspect", package, "--json").out)
    (function,) = facts["functions"].values()
    assert facts["kind"] == "ML Program"
    assert function["operations"] == {f"Ios16.{name}": count for name, count in facts["operations"].items()}
    assert facts["compute_precision"][0] == "fp16"
    assert facts["unsupported"] == {}
    bare = package / "Data/com.apple.CoreML/model.mlmodel"
    again = json.loads(sdc("inspect", bare, "--json").out)
    assert again | {"package": facts["package"]} == facts


def test_demo_does_the_whole_job(sdc, tmp_path):
    """What it prints without ``--json``, the README's test sees."""
    few = ("--pictures", 4, "--conditioned", 4, "--num-inference-steps", 4)
    done = sdc("demo", "-o", tmp_path / "d", *few, "--json")
    assert done.status == 0, done.err
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"bundle", "controlled", "demo.png"}
    facts = json.loads(done.out)
    assert facts["verification"]["passed"]
    assert (len(facts["pictures"]), len(facts["conditioned"])) == (4, 4)
    # the ControlNet puts shapes where edge maps say, and nothing else does
    assert np.mean([one["overlap"] for one in facts["conditioned"]]) > 0.75  # 0.83 where this was written
    without = draw_conditioned(
        tmp_path / "d" / "controlled", wanted_pictures(4), num_inference_steps=4, scale=0.0
    )
    assert np.mean([one.overlap for one in without]) < 0.5
    assert {part["name"] for part in facts["components"]} >= {"unet", "vae_decoder", "text_encoder"}


def test_inspect_says_what_was_merged_and_how_it_was_compressed(sdc, bundle):
    def edit(manifest):
        file = {"name": "org/detail[bold].safetensors", "size": 5, "sha256": "ab" * 32}
        manifest["model"]["denoiser"]["distillation"] = "lcm"
        manifest["provenance"]["weights"] |= {
            "loras": [{"file": file, "scale": 0.5, "text_scale": 0}],
            "embeddings": [{"token": "style", "file": file | {"name": "style.safetensors"}}],
            "vae": {"source": "org/vae", "files": [file | {"name": "vae.safetensors"}]},
        }
        (unet,) = [component for component in manifest["components"] if component["name"] == "unet"]
        unet["compression"] = {"methods": ["palettization"], "bits_per_weight": 6.25, "recipe": None}
        return manifest

    path = bundle / "manifest.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    done = sdc("inspect", bundle)
    assert done.status == 0, done.err
    for line in (
        "(sd1, lcm, v_prediction), 128x128 pixels",
        f"LoRA: org/detail[bold].safetensors (0.5, text 0), sha256 {'ab' * 32}",
        f"embedding: style from style.safetensors, sha256 {'ab' * 32}",
        f"VAE: org/vae, vae.safetensors, sha256 {'ab' * 32}",
        "unet, 128x128, SPLIT_EINSUM, CPU_AND_NE, macOS13, palettization, 6.25 bits per weight",
    ):
        assert line in done.out
    facts = json.loads(sdc("inspect", bundle, "--json").out)
    written = json.loads(path.read_text())
    assert (facts["model"], facts["provenance"]) == (written["model"], written["provenance"])
    assert facts["packages"][1]["picture_size"] == "128x128"


def test_chunks_are_shown_and_a_function_that_is_not_there_is_an_error(sdc, bundle, tmp_path):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    (unet,) = [component for component in manifest["components"] if component["name"] == "unet"]
    (variant,) = unet["variants"]
    unknown = {"package": variant["chunks"][0]["package"], "function": "more"}
    variant["chunks"].append(unknown | {"inputs": variant["chunks"][0]["outputs"], "outputs": []})
    path.write_text(json.dumps(manifest))
    done = sdc("inspect", bundle)
    assert done.status == 0, done.err
    assert "unet, 128x128, chunk 1 of 2, SPLIT_EINSUM" in done.out
    assert "unet, 128x128, chunk 2 of 2, more, SPLIT_EINSUM" in done.out
    done = sdc("generate", PROMPT, "-i", bundle, "-o", tmp_path / "x.png", "--num-inference-steps", 1)
    assert done.status == 1
    assert "expected a function 'more'" in done.err


def test_generate_samples_as_it_is_told(sdc, converted, tmp_path):
    arguments = ("--scheduler", "euler", "--spacing", "SGM Uniform", "--num-inference-steps", 2)
    done = sdc("generate", PROMPT, "-i", converted, "-o", tmp_path / "x.png", *arguments)
    assert done.status == 0, done.err
    assert read_settings(tmp_path / "x.png").spacing == "trailing"
    with Image.open(tmp_path / "x.png") as image:
        assert "Sampler: Euler, Schedule type: SGM Uniform, " in image.text["parameters"]
    arguments = ("--recipe", "tcd", "--timesteps", "900,500", "--eta", 0.5)
    done = sdc("generate", PROMPT, "-i", converted, "-o", tmp_path / "y.png", *arguments)
    assert done.status == 0, done.err
    assert "recipe tcd" in done.out
    settings = read_settings(tmp_path / "y.png")
    assert (settings.scheduler, settings.timesteps, settings.eta) == ("tcd", (900, 500), 0.5)
    assert (settings.num_inference_steps, settings.guidance_scale) == (2, 0.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scheduler", "euler", "--eta", 0.5), "no eta for scheduler 'euler'"),
        (("--scheduler", "unipc", "--sigmas", "3,0"), "no sigmas for scheduler 'unipc'"),
        (("--scheduler", "lcm", "--spacing", "karras"), "scheduler 'lcm', got 'karras'"),
        (("--recipe", "fast"), "expected a recipe of lcm, "),
        (("--timesteps", "9;5"), "expected whole numbers with commas between them, got '9;5'"),
    ],
)
def test_settings_that_are_not_honoured_are_one_line(sdc, converted, tmp_path, arguments, said):
    done = sdc("generate", PROMPT, "-i", converted, "-o", tmp_path / "x.png", *arguments)
    assert done.status != 0
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


def test_help_lists_what_the_libraries_know(sdc):
    done = sdc("generate", "--help")
    assert all(name in done.out for name in ("dpmpp_singlestep", "align_your_steps", "hyper-sd-4", "7.5"))
