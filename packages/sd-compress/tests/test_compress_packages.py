"""Packages and bundles on the disk: whole or not at all, and the manifest says what was done."""

import numpy as np
import pytest
from compressing import decoded, kinds, program
from sd_bundle import (
    BundleComponent,
    ConditioningFacts,
    DenoiserFacts,
    ImageSize,
    LatentSize,
    MissingComponentError,
    ModelFacts,
    OutputExistsError,
    PictureSize,
    PortSpec,
    Provenance,
    VaeFacts,
    new_bundle,
    open_bundle,
)
from sd_compress import (
    CompressionError,
    Palettize,
    Recipe,
    RecipeError,
    compress,
    compress_bundle,
    compress_package,
    parse_recipe,
    uniform_recipe,
)
from sd_mil import Description, read_package, write_package

RNG = np.random.default_rng(2)
WEIGHTS = {
    "attention": (RNG.standard_normal((64, 64)) / 8).astype(np.float16),
    "convolution": (RNG.standard_normal((64, 32, 3, 3)) / 8).astype(np.float16),
}
FACTS = ModelFacts(
    identifier="org/tiny",
    family="sd1",
    task="text-to-image",
    denoiser=DenoiserFacts("unet", None),
    prediction_type="epsilon",
    scheduler="scheduler/scheduler_config.json",
    sizes=(PictureSize(ImageSize(64, 64), LatentSize(4, 8, 8)),),
    vae=VaeFacts(0.18215, 0.0, "moments"),
    text_encoders=(),
    conditioning=ConditioningFacts("none", zero_empty_negative=False, guidance_embedding=False),
)
SAMPLE = PortSpec("sample", (2, 4, 8, 8), "float16")
NOISE = PortSpec("noise_pred", (2, 4, 8, 8), "float32")


def component(name, role):
    return BundleComponent.of_package(
        f"{name}.mlpackage",
        name=name,
        role=role,
        size=ImageSize(64, 64),
        inputs=(SAMPLE,),
        outputs=(NOISE,),
        attention_implementation=None,
        compute_unit="ALL",
        deployment_target="macOS13",
    )


def six_bits(made):
    return uniform_recipe(made, Palettize(6))


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "in" / "unet.mlpackage"
    write_package(path, program(WEIGHTS), Description((), ()), version=7, identity="unet")
    return path


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "in" / "bundle"
    origin = Provenance("org/tiny", None, {"sd-runtime": "0.1.0"}, "2026-01-31T12:00:00Z")
    with new_bundle(path, FACTS, provenance=origin) as draft:
        for name, role in (("unet", "denoiser"), ("vae_decoder", "image_decoder")):
            place = draft.add_component(component(name, role))
            write_package(place, program(WEIGHTS), Description((), ()), version=7)
        draft.add_file("scheduler/scheduler_config.json", b"{}")
    return path


def test_a_package(package, tmp_path):
    report = compress_package(package, tmp_path / "out.mlpackage", six_bits)
    read = read_package(tmp_path / "out.mlpackage")
    assert kinds(read.program) == ["constexpr_lut_to_dense"] * 2
    expected = decoded(
        compress(read_package(package).program, six_bits(read_package(package).program)).program
    )
    for name, values in decoded(read.program).items():
        np.testing.assert_array_equal(values, expected[name])
    assert report.bytes_after == sum(
        path.stat().st_size for path in (tmp_path / "out.mlpackage").rglob("*") if path.is_file()
    )
    assert report.bytes_after < report.bytes_before / 2
    assert 6 < report.bits_per_weight < 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.mlpackage"]


def test_a_newer_target_is_asked_for(package, tmp_path):
    def three_bits(made):
        return uniform_recipe(made, Palettize(3))

    with pytest.raises(CompressionError, match="ask for the target iOS18"):
        compress_package(package, tmp_path / "out.mlpackage", three_bits)
    with pytest.raises(CompressionError, match=r"target: expected one of iOS15.*, got 'iOS99'"):
        compress_package(package, tmp_path / "out.mlpackage", three_bits, target="iOS99")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    compress_package(package, tmp_path / "out.mlpackage", three_bits, target="macOS15")
    read = read_package(tmp_path / "out.mlpackage")
    assert (read.specification_version, read.program.main.opset) == (9, "CoreML8")


def stopped(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("there", [False, True])
def test_what_was_there_survives_an_interrupt(package, tmp_path, there):
    out = tmp_path / "out.mlpackage"
    if there:
        compress_package(package, out, six_bits)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        compress_package(
            package, out, lambda made: uniform_recipe(made, Palettize(2)), overwrite=True, progress=stopped
        )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", *(["out.mlpackage"] if there else [])]


def test_outputs_that_are_taken(package, tmp_path):
    out = tmp_path / "out.mlpackage"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="exists"):
        compress_package(package, out, six_bits)
    with pytest.raises(OutputExistsError, match="is no package"):
        compress_package(package, out, six_bits, overwrite=True)
    with pytest.raises(CompressionError, match=r"expected an output that ends in \.mlpackage"):
        compress_package(package, tmp_path / "out", six_bits)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_in_the_place_of_itself(package):
    compress_package(package, package, six_bits, overwrite=True)
    assert kinds(read_package(package).program) == ["constexpr_lut_to_dense"] * 2
    with pytest.raises(RecipeError, match="expected weights to compress, got none"):
        compress_package(package, package, six_bits, overwrite=True)


def test_a_bundle(bundle, tmp_path):
    report = compress_bundle(bundle, tmp_path / "out", six_bits)
    made = open_bundle(tmp_path / "out")
    made.check_integrity()
    unet, vae = made.manifest.components
    assert list(report.components) == ["unet"]
    assert unet.compression.methods == ("palettization",)
    assert unet.compression.bits_per_weight == pytest.approx(report.components["unet"][0].bits_per_weight)
    applied = parse_recipe((made.path / unet.compression.recipe).read_text())
    assert applied.schemes == {name: Palettize(6) for name in WEIGHTS}
    assert vae.compression is None
    old = open_bundle(bundle)
    for name, record in old.manifest.files.items():
        if not name.startswith("unet.mlpackage/"):
            assert made.manifest.files[name] == record
    assert kinds(read_package(made.package(unet)).program) == ["constexpr_lut_to_dense"] * 2
    assert not kinds(read_package(made.package(vae)).program)
    assert made.manifest.provenance == old.manifest.provenance


def test_components_by_name_and_a_newer_target(bundle, tmp_path):
    def three_bits(made):
        return uniform_recipe(made, Palettize(3))

    compress_bundle(bundle, tmp_path / "out", three_bits, components=["vae_decoder"], target="iOS18")
    unet, vae = open_bundle(tmp_path / "out").manifest.components
    assert (unet.compression, unet.deployment_target) == (None, "macOS13")
    assert (vae.compression.methods, vae.deployment_target) == (("palettization",), "iOS18")
    with pytest.raises(MissingComponentError, match="expected a component 'vae'"):
        compress_bundle(bundle, tmp_path / "other", three_bits, components=["vae"])


def test_a_bundle_is_compressed_further(bundle, tmp_path):
    one, other = Recipe({"attention": Palettize(4)}), Recipe({"convolution": Palettize(2)})
    compress_bundle(bundle, tmp_path / "first", one)
    compress_bundle(tmp_path / "first", tmp_path / "second", other)
    made = open_bundle(tmp_path / "second")
    made.check_integrity()
    assert kinds(read_package(made.package(made.component("unet"))).program) == ["constexpr_lut_to_dense"] * 2
    with pytest.raises(RecipeError, match="got 1 others of 1: 'nothing'"):
        compress_bundle(bundle, tmp_path / "third", Recipe({"nothing": Palettize(4)}))
    assert not (tmp_path / "third").exists()


def test_a_bundle_survives_an_interrupt(bundle, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        compress_bundle(bundle, tmp_path / "out", six_bits, progress=stopped)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
