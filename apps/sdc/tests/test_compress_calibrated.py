"""``sdc compress --calibrate`` and budgets: on the text encoder of the demo, which is small."""

import json
import re
from dataclasses import replace

import pytest
from sd_bundle import open_bundle
from sd_mil import read_package

pytest.importorskip("openvino")


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle on a blue background\n\n")
    return path


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_palettes_are_calibrated_while_the_bundle_draws(sdc, bundle, prompts, tmp_path):
    kept, common = tmp_path / "kept", ("--components", "text_encoder", "--nbits", 4)
    done = sdc(
        "compress",
        bundle,
        "-o",
        tmp_path / "small",
        *common,
        "--calibrate",
        prompts,
        "--calibration-folder",
        kept,
    )
    assert done.status == 0, done.err
    assert sdc("compress", bundle, "-o", tmp_path / "plain", *common, "--no-measure").status == 0
    assert {path.suffix for path in kept.rglob("*") if path.is_file()} == {".npz"}
    component = open_bundle(tmp_path / "small").component("text_encoder")
    assert component.compression.methods == ("palettization",)
    kinds = [
        [one.type for one in read_package(tmp_path / name / component.package).program.operations()]
        for name in ("small", "plain")
    ]
    assert kinds[0] == kinds[1]
    weights = [next((tmp_path / name / component.package).rglob("weight.bin")) for name in ("small", "plain")]
    assert weights[0].stat().st_size == weights[1].stat().st_size
    assert weights[0].read_bytes() != weights[1].read_bytes()


@pytest.mark.parametrize("budget", ["--target-bits", "--target-size"])
def test_a_budget_is_kept(sdc, bundle, tmp_path, budget):
    size = size_of(bundle) - 200_000
    given = 4.5 if budget == "--target-bits" else f"{size}"
    common = ("--no-measure", "--components", "text_encoder")
    done = sdc("compress", bundle, "-o", tmp_path / "small", budget, given, *common)
    assert done.status == 0, done.err
    assert "of the best recipe" in done.out
    if budget == "--target-size":
        assert size_of(tmp_path / "small") <= size
    recipe = json.loads((tmp_path / "small/recipes/text_encoder.json").read_text())["weights"]
    assert len({one.get("nbits") for one in recipe.values()}) > 1
    assert not (tmp_path / "small.calibration").exists()


def test_a_quality_is_measured_on_other_pictures(sdc, bundle, prompts, tmp_path):
    common = ("--components", "text_encoder", "--min-snr", 30, "--calibrate", prompts)
    done = sdc("compress", bundle, "-o", tmp_path / "small", *common)
    assert done.status == 0, done.err
    row = next(line for line in done.out.splitlines() if line.split()[:1] == ["text_encoder"])
    assert float(row.split()[-2]) >= 30
    assert size_of(tmp_path / "small") < size_of(bundle)
    assert not (tmp_path / "small.calibration").exists()


def test_a_plan_goes_by_what_was_measured(sdc, bundle, prompts, tmp_path, monkeypatch):
    """Of two weights, the one that is measured to be less sensitive gets fewer bits."""
    import sd_compress

    asked = {}

    def measured(package, weights, inputs, **options):
        asked.update(options, package=package, inputs=len(inputs))
        found = []
        for number, name in enumerate(weights):
            (each,) = sd_compress.sensitivities([known[name]], {}, sd_compress.optimal_palette)
            worse = [replace(one, noise=one.noise * 1000**number) for one in each.candidates]
            found.append(replace(each, candidates=tuple(worse)))
        return tuple(found)

    monkeypatch.setattr(sd_compress, "measured_sensitivities", measured)
    component = open_bundle(bundle).component("text_encoder")
    every = sd_compress.weights_of(read_package(bundle / component.package).program)
    known = {one.name: one for one in every}
    common = ("--components", "text_encoder", "--select", "*fc1*", "--calibrate", prompts, "--target-bits", 5)
    given = ("--sensitivities", "measured", "--jobs", 2)
    done = sdc("compress", bundle, "-o", tmp_path / "small", *common, *given)
    assert done.status == 0, done.err
    assert (asked["jobs"], asked["inputs"] > 0) == (2, True)
    assert asked["package"] == bundle / component.package
    recipe = json.loads((tmp_path / "small/recipes/text_encoder.json").read_text())["weights"]
    first, *_, last = (recipe[name].get("nbits", 16) for name in known if name in recipe)
    assert first < last


def test_a_device_that_is_not_there_is_said_before_anything_is_drawn(sdc, bundle, prompts, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    given = ("--nbits", 4, "--calibrate", prompts, "--device", "cuda")
    done = sdc("compress", bundle, "-o", tmp_path / "small", *given)
    assert done.status == 1
    assert "expected a GPU for the device 'cuda'" in done.err
    assert not (tmp_path / "small").exists()


def test_activations_are_calibrated_while_the_bundle_draws(sdc, bundle, prompts, tmp_path):
    common = ("--components", "text_encoder", "--calibrate", prompts, "--target", "iOS17")
    chosen = ("--method", "linear", "--nbits", 8, "--activations", "--keep-activations", "*fc1*")
    done = sdc("compress", bundle, "-o", tmp_path / "small", *common, *chosen)
    assert done.status == 0, done.err
    assert "dB at the layer's output" in done.out
    row = next(line for line in done.out.splitlines() if line.split()[:1] == ["text_encoder"])
    assert float(row.split()[-2]) > 20
    component = open_bundle(tmp_path / "small").component("text_encoder")
    assert component.compression.methods == ("quantization", "activation_quantization")
    assert component.deployment_target == "iOS17"
    recipe = json.loads((tmp_path / "small/recipes/text_encoder.json").read_text())["weights"]
    assert {name: "fc1" not in name for name in recipe} == {
        name: "activations" in one for name, one in recipe.items()
    }
    kinds = [one.type for one in read_package(tmp_path / "small" / component.package).program.operations()]
    assert 0 < kinds.count("quantize") == kinds.count("dequantize")
    given = ("--recipe", tmp_path / "small/recipes/text_encoder.json")
    done = sdc("compress", bundle, "-o", tmp_path / "again", *common, *given, "--no-measure")
    assert done.status == 0, done.err
    weights = [next((tmp_path / name / component.package).rglob("weight.bin")) for name in ("small", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--min-snr", 20), "--min-snr: it needs --calibrate"),
        (("--target-bits", 4, "--target-size", "5MB"), "expected one of --target-size"),
        (("--target-bits", 4, "--nbits", 6), "--nbits: not an option beside a budget"),
        (("--target-bits", 4, "--weight", "*=6"), "--weight: not an option beside a budget"),
        (("--target-size", "small"), "expected a size such as 600MB"),
        (("--target-bits", 0.01), "bits for each of the weights, tables included, got 0.01"),
        (("--target-size", "1MB"), r"expected a budget of at least"),
        (("--nbits", 4, "--calibration-folder", "x"), "--calibration-folder: it needs --calibrate"),
        (("--nbits", 4, "--device", "cpu"), "--device: it needs --calibrate"),
        (("--nbits", 4, "--sensitivities", "measured"), "--sensitivities: it needs a budget"),
        (("--target-bits", 4, "--sensitivities", "measured"), "--sensitivities: it needs --calibrate"),
        (("--target-bits", 4, "--jobs", 2), "--jobs: it needs --sensitivities measured"),
        (("--method", "linear", "--calibrate"), "--calibrate: it finds palettes"),
        (("--activations", "--target", "iOS17"), "--activations: it needs --calibrate"),
        (("--activations", "--calibrate"), "and activations; ask for the target iOS17"),
        (("--activations", "--nbits", 4, "--calibrate"), "--activations: expected symmetric int8 weights"),
        (("--nbits", 4, "--activations"), "--activations: expected symmetric int8 weights"),
        (("--method", "palettize", "--nbits", 4, "--activations"), "--activations: not an option of"),
        (("--method", "linear", "--activation-range", "mse"), "--activation-range: it needs --activations"),
        (("--nbits", 4, "--min-activation-snr", 30), "--min-activation-snr: it needs --activations"),
        (("--nbits", 4, "--keep-activations", "*"), "--keep-activations: it needs --activations"),
        (("--target-bits", 4, "--activations"), "--activations: not an option beside a budget"),
        (("--nbits", 4, "--calibrate", "nowhere.txt"), "expected a text file of prompts"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(sdc, bundle, tmp_path, given, said):
    done = sdc("compress", bundle, "-o", tmp_path / "small", "--no-measure", *given)
    assert done.status != 0
    assert said in done.err
    assert done.err.strip().count("\n") <= 3  # click's usage takes a few
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("budget", [("--target-bits", 0.5), ("--target-size", "1MB")])
@pytest.mark.parametrize("calibrate", [(), ("--calibrate",)])
def test_a_budget_that_no_recipe_meets_costs_no_time(sdc, bundle, tmp_path, monkeypatch, budget, calibrate):
    def work(*_, **__):
        pytest.fail("work that comes to nothing")

    monkeypatch.setattr("sdc.calibrating.Calibrating.run", work)
    monkeypatch.setattr("sd_compress.sensitivities", work)
    done = sdc("compress", bundle, "-o", tmp_path / "small", *budget, *calibrate)
    assert done.status == 1
    assert re.search(r"expected (a budget of )?at least [0-9.]+ (MB|bits for)", done.err)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe\x00", b"a" * (2**20 + 1)])
def test_files_that_hold_no_prompts_are_refused(sdc, bundle, tmp_path, content):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    done = sdc("compress", bundle, "-o", tmp_path / "small", "--nbits", 4, "--calibrate", path)
    assert done.status == 1
    assert "prompts" in done.err
    assert done.err.count("\n") == 1


def test_a_package_cannot_draw_prompts(sdc, bundle, prompts, tmp_path):
    package = bundle / open_bundle(bundle).component("unet").package
    done = sdc("compress", package, "-o", tmp_path / "s.mlpackage", "--nbits", 4, "--calibrate", prompts)
    assert done.status != 0
    assert "expected a bundle" in done.err
