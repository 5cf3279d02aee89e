"""``sdc lint`` and ``sdc repair`` on what coremltools writes: findings, exit statuses, proofs, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sd_mil import Description, Pipeline, compile_model, read_model, read_package
from sd_mil.analysis.lint import REPAIRS, lint
from sd_mil.analysis.lint.repair import Repair
from sd_mil.format import write_model
from sd_mil.ir import programs_in
from sd_mil.rewriting import rewrites

ct = pytest.importorskip("coremltools")

#: coremltools leaves a temporary folder to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def saved(path, program, target):
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        skip_model_load=True,
        compute_precision=ct.precision.FLOAT16,
    )
    model.save(str(path))
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """``old``: CLIP's attention of rank 3. ``batch``: fused, 12 samples. ``table``: iOS18's 4 bits."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813 - its users' name
    from coremltools.optimize import coreml as cto

    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 32)).astype(np.float32)

    def spec(*shape):
        return mb.TensorSpec(shape)

    @mb.program(input_specs=[spec(4, 7, 8), spec(4, 7, 8), spec(4, 7, 8)], opset_version=ct.target.iOS16)
    def old(q, k, v):
        scores = mb.matmul(x=q, y=k, transpose_y=True)
        scores = mb.mul(x=scores, y=np.float32(0.35))
        mask = np.triu(np.full((1, 1, 7, 7), -1e4, np.float32), 1)
        masked = mb.add(x=mb.reshape(x=scores, shape=[1, 4, 7, 7]), y=mask)
        weights = mb.softmax(x=mb.reshape(x=masked, shape=[4, 7, 7]), axis=-1)
        return mb.matmul(x=weights, y=v, name="attended")

    @mb.program(input_specs=[spec(12, 2, 5, 8) for _ in range(3)], opset_version=ct.target.iOS18)
    def batch(q, k, v):
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, name="attended")

    @mb.program(input_specs=[spec(1, 32)], opset_version=ct.target.iOS18)
    def plain(x):
        return mb.linear(x=x, weight=weight, bias=np.zeros(64, np.float32), name="y")

    saved(folder / "old.mlpackage", old, ct.target.iOS16)
    saved(folder / "batch.mlpackage", batch, ct.target.iOS18)
    model = saved(folder / "plain.mlpackage", plain, ct.target.iOS18)
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0))
    cto.palettize_weights(model, config).save(str(folder / "table.mlpackage"))
    return folder


def test_nothing_found_is_status_0(sdc, models):
    done = sdc("lint", models / "plain.mlpackage", "--target", "iphone", "--fail-on", "warning")
    assert done.status == 0, done.err
    assert "no errors, no warnings, no notes for iphone on 27" in done.out


def test_findings_name_operation_limit_source_and_remedy(sdc, models):
    done = sdc("lint", models / "old.mlpackage", "--target", "mac")
    assert done.status == 4
    assert "error gpu-attention-rank-3: attention of rank 3" in done.out
    assert "old.mlpackage, function main, 1 × softmax:" in done.out
    assert "MochiDiffusion#521" in done.out
    assert "2026-09-21" in done.out
    assert "sdc repair does it" in done.out


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 4),
        (("--fail-on", "never"), 0),
        (("--os", "26"), 0),
        (("--os", "macOS26"), 0),
        (("--os", "macOS27"), 4),
    ],
)
def test_the_status_tells_the_severity(sdc, models, arguments, status):
    assert sdc("lint", models / "old.mlpackage", "--target", "mac", *arguments).status == status


def test_warnings_have_a_status_when_asked_for(sdc, models, tmp_path):
    path = models / "table.mlpackage"
    older = ("--target", "iphone", "--os", "macOS15")
    assert sdc("lint", path, *older, "--fail-on", "warning").status == 0
    report = lint(path, "iphone", 26)
    assert [one.rule.id for one in report.findings] == ["ane-table-ios18", "ane-4-bit-coremltools-9"]


def test_a_system_that_is_too_old_is_an_error(sdc, models):
    done = sdc("lint", models / "batch.mlpackage", "--target", "ipad", "--os", "17", "--json")
    assert done.status == 4
    facts = json.loads(done.out)
    assert {one["rule"] for one in facts["findings"]} == {"specification-version", "opset-version"}
    assert facts["worst"] == "error"


def test_a_folder_of_models_is_linted_and_not_repaired(sdc, models, tmp_path):
    folder = tmp_path / "Resources"
    shutil.copytree(models / "plain.mlpackage", folder / "Unet.mlpackage")
    (folder / "controlnet").mkdir()
    compile_model(models / "old.mlpackage", folder / "controlnet" / "Canny.mlmodelc")
    (folder / "vocab.json").write_text("{}")
    done = sdc("lint", folder, "--target", "mac", "--json")
    assert done.status == 4, done.err
    assert [Path(one["model"]).name for one in json.loads(done.out)["findings"]] == ["Canny.mlmodelc"]
    done = sdc("repair", folder, "--target", "mac", "-o", tmp_path / "out.mlpackage")
    assert done.status == 1
    assert "each of them by itself: Unet.mlpackage, controlnet/Canny.mlmodelc" in " ".join(done.err.split())


@pytest.mark.parametrize("system", ["19", "macOS17", "iOS", "windows"])
def test_unknown_systems_are_refused(sdc, models, system):
    done = sdc("lint", models / "plain.mlpackage", "--target", "mac", "--os", system)
    assert done.status == 2
    assert "16, 17, 18, 26, 27" in done.err


def test_sarif_is_written_beside_what_is_printed(sdc, models, tmp_path):
    file = tmp_path / "lint.sarif"
    assert sdc("lint", models / "batch.mlpackage", "--target", "mac", "--sarif", file).status == 4
    log = json.loads(file.read_text())
    assert [one["ruleId"] for one in log["runs"][0]["results"]] == ["gpu-attention-batch"]
    assert [one.name for one in tmp_path.iterdir()] == ["lint.sarif"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [("old", "gpu-attention-rank-3"), ("batch", "gpu-attention-batch"), ("table", "ane-table-ios18")],
)
def test_a_repaired_model_has_the_same_outputs_and_no_finding(sdc, models, tmp_path, name, rule):
    out = tmp_path / "mended.mlpackage"
    done = sdc("repair", models / f"{name}.mlpackage", "--target", "mac", "-o", out)
    assert done.status == 0, done.err
    assert f"mended in {name}.mlpackage: {rule}" in done.out
    assert "equal" in done.out
    assert rule not in {one.rule.id for one in lint(out, "mac").findings}
    assert "operation-version" not in {one.rule.id for one in lint(out, "mac").findings}
    assert [one.name for one in tmp_path.iterdir()] == [out.name]
    assert output_types_of(out) == output_types_of(models / f"{name}.mlpackage")


def output_types_of(path):
    """As coremltools infers them, operation by operation, from the file."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    weights = path / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(weights))
    return [(one.name, one.shape, one.dtype) for one in program.functions["main"].outputs]


@pytest.fixture(scope="module")
def pipeline(models, tmp_path_factory) -> Path:
    """Of ``old``, and of a pipeline of ``table``."""
    read = {name: read_package(models / f"{name}.mlpackage") for name in ("old", "table")}
    ports = [
        tuple(port for one in read.values() for port in getattr(one.description, side))
        for side in ("inputs", "outputs")
    ]
    inner = Pipeline("", 9, read["table"].description, {"table": read["table"]}, 0)
    made = Pipeline("", 9, Description(*ports), {"old": read["old"], "inner": inner}, 0)
    return write_model(tmp_path_factory.mktemp("pipeline") / "both.mlpackage", made).path


def test_every_model_of_a_pipeline_is_mended(sdc, pipeline, tmp_path):
    out = tmp_path / "mended.mlpackage"
    done = sdc("repair", pipeline, "--target", "mac", "-o", out, "--json")
    assert done.status == 0, done.err
    (said,) = json.loads(done.out)["packages"]
    assert [(one["rule"], Path(one["model"]).name) for one in said["mended"]] == [
        ("gpu-attention-rank-3", "old"),
        ("ane-table-ios18", "table"),
    ]
    assert [one["function"] for one in said["functions"]] == [None]
    mended = read_model(out)
    assert [name for name, _ in programs_in(mended)] == ["/old", "/inner/table"]
    assert mended.specification_version == mended.models["inner"].specification_version == 8
    assert {one.rule.id for one in lint(out, "mac").findings}.isdisjoint(REPAIRS)
    again = sdc("repair", out, "--target", "mac", "-o", tmp_path / "again.mlpackage")
    assert "nothing was written" in again.out


def test_a_pipeline_is_proved_whole(sdc, pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("sd_mil.analysis.lint.repair.REPAIRS", spoiled())
    done = sdc("repair", pipeline, "--target", "mac", "-o", tmp_path / "mended.mlpackage")
    assert done.status == 1
    assert "in the pipeline of both.mlpackage; nothing was written" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_table_needs_an_older_system_only(sdc, models, tmp_path):
    out = tmp_path / "mended.mlpackage"
    done = sdc("repair", models / "table.mlpackage", "--target", "iphone", "--os", "26", "-o", out)
    assert done.status == 0, done.err
    mended = read_package(out)
    assert (mended.program.main.opset, mended.specification_version) == ("CoreML7", 8)
    assert "ane-4-bit-coremltools-9" in done.out
    assert "left as it is: it is no matter of rewriting" in done.out


def test_what_is_not_asked_for_is_left(sdc, models, tmp_path):
    out = tmp_path / "mended.mlpackage"
    arguments = ("--target", "mac", "-o", out, "--only", "ane-table-ios18")
    done = sdc("repair", models / "old.mlpackage", *arguments)
    assert done.status == 0, done.err
    assert "left as it is: it was not asked for" in done.out
    assert "nothing was written" in done.out
    assert not out.exists()


def spoiled():
    """The repairs, of which one changes the outputs."""

    @rewrites()
    def spoil(program):
        body = program.main.body
        operations = tuple(
            replace(one, type="sigmoid", inputs={"x": one.inputs["x"]}) if one.type == "softmax" else one
            for one in body.operations
        )
        main = replace(program.main, body=replace(body, operations=operations))
        return replace(program, functions={"main": main})

    return {**REPAIRS, "gpu-attention-rank-3": Repair(spoil)}


def test_changed_outputs_are_never_written(sdc, models, tmp_path, monkeypatch):
    monkeypatch.setattr("sd_mil.analysis.lint.repair.REPAIRS", spoiled())
    out = tmp_path / "mended.mlpackage"
    done = sdc("repair", models / "old.mlpackage", "--target", "mac", "-o", out)
    assert done.status == 1
    assert "expected outputs within 60 dB of those before" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "taken.mlpackage"), "which exists"),
        (("-o", "out"), "ends in .mlpackage"),
        (("-o", "out.mlpackage", "--only", "memory"), "expected one of needless-cast"),
    ],
)
def test_bad_arguments_are_one_line(sdc, models, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("taken.mlpackage").mkdir()
    done = sdc("repair", models / "old.mlpackage", "--target", "mac", *arguments)
    assert done.status in (1, 2)
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_bundles_are_linted_and_mended_package_by_package(sdc, bundle, models, tmp_path):
    from sd_bundle import open_bundle

    done = sdc("lint", bundle, "--target", "iphone", "--json", "--fail-on", "never")
    assert done.status == 0, done.err
    assert {one["severity"] for one in json.loads(done.out)["findings"]} <= {"warning", "note"}
    out = tmp_path / "mended"
    done = sdc("repair", bundle, "--target", "mac", "-o", out)
    assert "nothing was written" in done.out
    assert not out.exists()
    name = open_bundle(bundle).manifest.components[0].packages[0]
    damaged = with_package(bundle, name, models / "old.mlpackage", tmp_path / "changed")
    done = sdc("repair", damaged, "--target", "mac", "-o", out)
    assert done.status == 0, done.err
    mended = open_bundle(out)
    assert set(mended.manifest.files) == set(open_bundle(damaged).manifest.files)
    others = [file for file in mended.manifest.files if not file.startswith(f"{name}/")]
    assert all((out / file).read_bytes() == (damaged / file).read_bytes() for file in others)
    assert lint(mended.checked_folder(name), "mac").findings == ()


def with_package(bundle, name, package, output):
    """The bundle with another package in one place."""
    from sd_bundle import new_bundle, open_bundle

    opened = open_bundle(bundle)
    with new_bundle(output, opened.manifest.model, provenance=opened.manifest.provenance) as draft:
        for component in opened.manifest.components:
            for one, place in zip(component.packages, draft.add_packages(component), strict=True):
                shutil.copytree(package if one == name else bundle / one, place)
        for file in opened.manifest.files:
            if not (draft.folder / file).exists() and not file.startswith(f"{name}/"):
                draft.copy_file(bundle / file, file)
    return output
