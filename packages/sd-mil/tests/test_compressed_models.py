"""Models that coremltools compresses, in its modes and granularities, executed by both engines.

The weights are held to ``decompress_weights`` bit for bit; the outputs to the decompressed model's.
"""

import functools
import importlib.util

import numpy as np
import pytest

pytest.importorskip("coremltools")
pytest.importorskip("openvino")

import coremltools as ct
import coremltools.optimize.coreml as cto
from coremltools.converters.mil.mil import Builder, types
from sd_mil import Constant, MLModel, read_package
from sd_mil.constexpr import decode

#: coremltools leaves the folders of its models to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore")

#: Clusters need scikit-learn; vectors have no other way.
KMEANS = "kmeans" if importlib.util.find_spec("sklearn") else "uniform"
RNG = np.random.default_rng(8)
LINEAR = (RNG.standard_normal((32, 16)) / 4).astype(np.float16)
CONV = (RNG.standard_normal((16, 8, 3, 3)) / 8).astype(np.float16)


@functools.cache
def original(opset):
    """A convolution and a product, large enough to be compressed."""

    @Builder.program(
        input_specs=[Builder.TensorSpec((1, 8, 6, 6), types.fp16)], opset_version=getattr(ct.target, opset)
    )
    def made(x):
        convolved = Builder.conv(x=x, weight=CONV, pad_type="same", name="convolved")
        flat = Builder.reshape(x=convolved, shape=[36, 16])
        return Builder.linear(x=flat, weight=LINEAR, name="y")

    return ct.convert(
        made,
        minimum_deployment_target=getattr(ct.target, opset),
        skip_model_load=True,
        convert_to="mlprogram",
    )


def palettize(**given):
    return functools.partial(
        _apply, cto.palettize_weights, cto.OpPalettizerConfig(weight_threshold=0, **given)
    )


def quantize(**given):
    return functools.partial(
        _apply, cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(weight_threshold=0, **given)
    )


def prune(**given):
    kind = cto.OpMagnitudePrunerConfig if "target_sparsity" in given else cto.OpThresholdPrunerConfig
    return functools.partial(_apply, cto.prune_weights, kind(weight_threshold=0, **given))


def _apply(function, config, model, **more):
    return function(model, cto.OptimizationConfig(global_config=config), **more)


OLD = {
    **{f"palette of {bits} bits": [palettize(mode=KMEANS, nbits=bits)] for bits in (1, 2, 4, 6, 8)},
    "uniform palette": [palettize(mode="uniform", nbits=4)],
    "int8": [quantize(mode="linear_symmetric", dtype="int8")],
    "uint8": [quantize(mode="linear", dtype="uint8")],
    "pruned": [prune(target_sparsity=0.6)],
    "pruned by threshold": [prune(threshold=0.1)],
}
NEW = {
    **{f"palette of {bits} bits": [palettize(mode=KMEANS, nbits=bits)] for bits in (1, 2, 3, 4, 6, 8)},
    "palettes of 4 channels": [
        palettize(mode=KMEANS, nbits=4, granularity="per_grouped_channel", group_size=4, channel_axis=0)
    ],
    "palettes of input channels": [
        palettize(mode=KMEANS, nbits=3, granularity="per_grouped_channel", group_size=4, channel_axis=1)
    ],
    **(
        {"palette of vectors": [palettize(mode=KMEANS, nbits=4, cluster_dim=2)]} if KMEANS == "kmeans" else {}
    ),
    "palette with scales": [palettize(mode=KMEANS, nbits=4, enable_per_channel_scale=True)],
    **{
        f"{dtype} {mode} {granularity}": [quantize(mode=mode, dtype=dtype, granularity=granularity, **sizes)]
        for dtype in ("int4", "uint4", "int8", "uint8")
        for mode in ("linear", "linear_symmetric")
        for granularity, sizes in (("per_tensor", {}), ("per_channel", {}), ("per_block", {"block_size": 4}))
    },
    "pruned": [prune(target_sparsity=0.6)],
    "pruned, then palette": [prune(target_sparsity=0.6), palettize(mode=KMEANS, nbits=4)],
    "pruned, then int8": [prune(target_sparsity=0.6), quantize(mode="linear_symmetric", dtype="int8")],
    "palette, then int8 entries": [
        palettize(mode=KMEANS, nbits=4),
        quantize(mode="linear_symmetric", dtype="int8", granularity="per_tensor"),
    ],
}
CASES = [("iOS16", name) for name in OLD] + [("iOS18", name) for name in NEW]


def compressed(opset, name):
    model = original(opset)
    for position, step in enumerate((OLD if opset == "iOS16" else NEW)[name]):
        model = step(model, **({"joint_compression": True} if position else {}))
    return model


def weights(package):
    """Every constant of more than 64 elements by the operation that uses it, decoded."""
    known, found = {}, {}
    for operation in package.program.operations():
        if operation.type == "const":
            known[operation.outputs[0].name] = operation.attributes["val"]
        elif operation.type.startswith("constexpr_"):
            known |= decode(operation, functools.partial(_constant, known))
        elif "weight" in operation.inputs:
            (weight,) = operation.inputs["weight"]
            found[operation.type] = known[weight.name]
    return found


def _constant(known, argument):
    return argument if isinstance(argument, Constant) else known[argument.name]


@pytest.mark.parametrize(("opset", "name"), CASES)
def test_compressed(tmp_path, opset, name):
    model = compressed(opset, name)
    path, plain = str(tmp_path / "compressed.mlpackage"), str(tmp_path / "plain.mlpackage")
    model.save(path)
    cto.decompress_weights(model).save(plain)
    package, expected = read_package(path), weights(read_package(plain))
    assert any(one.type.startswith("constexpr_") for one in package.program.operations())
    for kind, weight in weights(package).items():
        assert weight.type == expected[kind].type
        assert weight.value.tobytes() == expected[kind].value.tobytes()
    x = RNG.standard_normal((1, 8, 6, 6)).astype(np.float16)
    (y,) = MLModel(plain, engine="reference").predict({"x": x}).values()
    for engine in ("reference", "portable"):
        (got,) = MLModel(path, engine=engine).predict({"x": x}).values()
        np.testing.assert_allclose(got, y, rtol=2e-3, atol=2e-3)
