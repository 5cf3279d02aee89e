"""What training in tables leaves is stored in that many bits without loss, by coremltools too."""

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("coremltools")

NBITS = 2


@pytest.fixture(scope="module")
def trained(checkpoint, tmp_path_factory) -> Path:
    """The demo checkpoint with a smaller UNet whose weights are in tables."""
    import torch
    from diffusers import UNet2DConditionModel
    from sd_compress.training import finalize, prepare

    config = UNet2DConditionModel.load_config(checkpoint / "unet")
    small = {"block_out_channels": (32, 32), "norm_num_groups": 8}
    unet = UNet2DConditionModel.from_config(config, **small)
    prepare(unet, nbits=NBITS)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(".tables"):  # as training leaves them: no longer what fits the weights best
                parameter += 0.01 * torch.randn_like(parameter)
    finalize(unet)
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    shutil.copytree(checkpoint, folder)
    shutil.rmtree(folder / "unet")
    unet.half().save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="module")
def package(trained, tmp_path_factory) -> Path:
    from sd_convert import convert, open_checkpoint

    report = convert(open_checkpoint(trained, components=["unet"]), tmp_path_factory.mktemp("b") / "bundle")
    return report.bundle / report.components[0].package


def large_weights(program) -> dict[str, np.ndarray]:
    operations = program.functions["main"].body.operations
    values = {o.name: np.asarray(o.attributes["val"].value) for o in operations if o.type == "const"}
    return {name: value for name, value in values.items() if value.ndim > 1 and value.size >= 2048}


def distinct(value: np.ndarray) -> int:
    """Counted in fp32: with AVX-512, numpy 2.1 to 2.4 leaves 2,048 fp16 numbers and more out of order."""
    return len(np.unique(value.astype(np.float32)))


def test_every_large_weight_of_the_package_holds_four_values(package):
    from sd_mil import read_package

    weights = large_weights(read_package(package).program)
    assert len(weights) > 40
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float16)}
    assert {distinct(value) for value in weights.values()} <= set(range(1, 2**NBITS + 1))


def test_k_means_of_four_clusters_has_no_error(package):
    from coremltools._deps.kmeans1d import cluster
    from sd_mil import read_package

    for value in large_weights(read_package(package).program).values():
        labels, centroids = cluster(value.ravel().astype(np.float64), 2**NBITS)
        assert np.array_equal(np.float16(centroids)[labels], value.ravel())


def test_plain_palettization_of_two_bits_loses_nothing(package):
    from sd_compress import Palettize, palettize, uniform_recipe
    from sd_mil import read_package
    from sd_mil.rewriting import decode_constants

    program = read_package(package).program
    recipe = uniform_recipe(program, Palettize(NBITS))
    before, after = large_weights(program), large_weights(decode_constants(palettize(program, recipe)))
    assert recipe.schemes.keys() == before.keys()
    assert all(np.array_equal(value, after[name]) for name, value in before.items())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its temporary folders
def test_coremltools_stores_it_in_two_bits_without_loss(package, tmp_path, monkeypatch):
    import coremltools as ct
    from coremltools.optimize.coreml import OpPalettizerConfig, OptimizationConfig, palettize_weights
    from coremltools.optimize.coreml import _quantization_passes as passes
    from sd_compress import storage
    from sd_mil import read_package
    from sd_mil.rewriting import decode_constants

    model = ct.models.MLModel(str(package), skip_model_load=True)
    # it counts values as distinct does, but in fp16; a table that they do not fit into is its error
    monkeypatch.setattr(passes.palettize_weights, "_get_nbits_for_unique_mode", lambda *_: NBITS)
    unique = OptimizationConfig(global_config=OpPalettizerConfig(mode="unique", weight_threshold=2047))
    palettize_weights(model, unique).save(str(tmp_path / "two.mlpackage"))
    two = read_package(tmp_path / "two.mlpackage")
    stored = {row.encoding: row.weights for row in storage(two).rows}
    before, after = large_weights(read_package(package).program), large_weights(decode_constants(two.program))
    assert stored["2-bit palette"] == len(before) == len(after)
    assert all(np.array_equal(value, after[f"{name}_palettized"]) for name, value in before.items())
