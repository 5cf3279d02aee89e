"""What is written is decoded by coremltools to the same bits, and no worse than what coremltools writes."""

import functools
import importlib.util

import numpy as np
import pytest

pytest.importorskip("coremltools")

import coremltools as ct
import coremltools.optimize.coreml as cto
from compressing import decoded, kinds
from coremltools.converters.mil.mil import Builder, types
from sd_compress import (
    Joint,
    Linear,
    Palettize,
    PerBlock,
    PerChannel,
    PerGroupedChannel,
    PerTensor,
    Prune,
    compress,
    uniform_recipe,
)
from sd_compress.recipe import Selection
from sd_mil import MLModel, read_package, write_package

#: coremltools leaves the folders of its models to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(8)
WEIGHTS = {
    "convolution": (RNG.standard_t(4, (48, 32, 3, 3)) / 16).astype(np.float16),
    "product": (RNG.standard_normal((64, 48)) / 8).astype(np.float16),
    "factor": (RNG.standard_normal((64, 96)) / 8).astype(np.float16),
}
ALL = Selection(fewest_elements=0)


@functools.cache
def original(opset):
    """A convolution, a linear layer and a product with a matrix [in, out]."""
    target = getattr(ct.target, opset)

    @Builder.program(input_specs=[Builder.TensorSpec((1, 32, 4, 4), types.fp16)], opset_version=target)
    def made(x):
        kernel = Builder.const(val=WEIGHTS["convolution"], name="convolution")
        convolved = Builder.conv(x=x, weight=kernel, pad_type="same", name="convolved")
        rows = Builder.transpose(x=Builder.reshape(x=convolved, shape=[48, 16]), perm=[1, 0])
        matrix = Builder.const(val=WEIGHTS["product"], name="product")
        factor = Builder.const(val=WEIGHTS["factor"], name="factor")
        return Builder.matmul(x=Builder.linear(x=rows, weight=matrix), y=factor, name="y")

    return ct.convert(made, minimum_deployment_target=target, skip_model_load=True, convert_to="mlprogram")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    for opset in ("iOS16", "iOS17", "iOS18"):
        original(opset).save(str(folder / f"{opset}.mlpackage"))
    return folder


def written(folder, package, scheme):
    made = compress(package.program, uniform_recipe(package.program, scheme, ALL))
    assert len(made.weights) == 3
    assert not made.kept
    path = folder / "ours.mlpackage"
    write_package(path, made.program, package.description, version=package.specification_version)
    return path


OLD = {
    **{f"palette of {bits} bits": Palettize(bits) for bits in (1, 2, 4, 6, 8)},
    "int8": Linear(),
    "uint8": Linear("uint8", "asymmetric"),
    "int8 of the tensor": Linear("int8", "asymmetric", PerTensor()),
    "uint8 around zero": Linear("uint8", "symmetric", PerTensor()),
    "int8 of inputs": Linear("int8", "symmetric", PerChannel(1)),
    "pruned": Prune(0.6),
    "pruned 2:4": Prune(n_m=(2, 4)),
}
NEW = {
    **OLD,
    "palette of 3 bits": Palettize(3),
    "palettes of 16 channels": Palettize(4, PerGroupedChannel(16)),
    "palettes of input channels": Palettize(3, PerGroupedChannel(16, 1)),
    "palette with scales": Palettize(4, per_channel_scale=True),
    "palette of vectors": Palettize(4, vector_size=2),
    "palettes of vectors of 16 channels, with scales": Palettize(2, PerGroupedChannel(16), True, 4),
    "int4": Linear("int4"),
    "uint4 of blocks": Linear("uint4", "asymmetric", PerBlock(16)),
    "int4 of blocks": Linear("int4", "asymmetric", PerBlock(16)),
    "int8 of blocks": Linear("int8", "symmetric", PerBlock(16)),
    "pruned, then palette": Joint(Prune(0.6), Palettize(4)),
    "pruned 2:4, then palettes of 16 channels": Joint(Prune(n_m=(2, 4)), Palettize(2, PerGroupedChannel(16))),
    "pruned, then int8": Joint(Prune(0.6), Linear()),
    "pruned, then uint4 of blocks": Joint(Prune(0.5), Linear("uint4", "asymmetric", PerBlock(16))),
}
CASES = [
    *(("iOS16", name) for name in OLD),
    ("iOS17", "palette of 6 bits"),
    *(("iOS18", name) for name in NEW),
]


@pytest.mark.parametrize(("opset", "name"), CASES)
def test_coremltools_decodes_the_same_bits(tmp_path, packages, opset, name):
    package = read_package(packages / f"{opset}.mlpackage")
    path = written(tmp_path, package, NEW[name])
    plain = str(tmp_path / "plain.mlpackage")
    cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True)).save(plain)
    ours, theirs = decoded(read_package(path).program), decoded(read_package(plain).program)
    assert kinds(read_package(path).program)
    for weight, values in WEIGHTS.items():
        (decompressed,) = (one for key, one in theirs.items() if key.startswith(weight))
        assert ours[weight].dtype == decompressed.dtype == values.dtype
        assert ours[weight].tobytes() == decompressed.tobytes()
        assert not np.array_equal(ours[weight], values) or name == "palette of 8 bits"


@pytest.mark.parametrize("name", ["palette of 4 bits", "uint4 of blocks", "pruned, then int8"])
def test_the_portable_engine_runs_it(tmp_path, packages, name):
    pytest.importorskip("openvino")
    path = written(tmp_path, read_package(packages / "iOS18.mlpackage"), NEW[name])
    plain = str(tmp_path / "plain.mlpackage")
    cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True)).save(plain)
    x = RNG.standard_normal((1, 32, 4, 4)).astype(np.float16)
    (expected,) = MLModel(plain, engine="reference").predict({"x": x}).values()
    (got,) = MLModel(path, engine="portable").predict({"x": x}).values()
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


def error(values, name):
    return ((values.astype(np.float64) - WEIGHTS[name]) ** 2).sum()


ORACLES = {
    **{
        f"palette of {bits} bits": (cto.palettize_weights, cto.OpPalettizerConfig(nbits=bits))
        for bits in (1, 2, 4, 6, 8)
    },
    "int8": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig()),
    "uint8": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(mode="linear", dtype="uint8")),
    "int8 of the tensor": (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(mode="linear", dtype="int8", granularity="per_tensor"),
    ),
    "uint8 around zero": (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(dtype="uint8", granularity="per_tensor"),
    ),
    "int4": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(dtype="int4")),
    "int4 of blocks": (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(mode="linear", dtype="int4", granularity="per_block", block_size=16),
    ),
    "int8 of blocks": (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(granularity="per_block", block_size=16),
    ),
    "uint4 of blocks": (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(mode="linear", dtype="uint4", granularity="per_block", block_size=16),
    ),
    "pruned": (cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=0.6)),
    "pruned 2:4": (cto.prune_weights, cto.OpMagnitudePrunerConfig(n_m_ratio=(2, 4))),
}


@pytest.mark.parametrize("name", ORACLES)
def test_no_worse_than_coremltools(tmp_path, packages, name):
    function, config = ORACLES[name]
    opset = "iOS16" if name in OLD else "iOS18"
    config.weight_threshold = 0
    kmeans1d_only = "palette" in name and not importlib.util.find_spec("sklearn")
    names = ["convolution"] if kmeans1d_only else ["convolution", "product"]
    by_name = {weight: (config if weight in names else None) for weight in WEIGHTS}
    theirs = function(original(opset), cto.OptimizationConfig(op_name_configs=by_name))
    cto.decompress_weights(theirs).save(str(tmp_path / "theirs.mlpackage"))
    plain = decoded(read_package(tmp_path / "theirs.mlpackage").program)
    ours = decoded(
        read_package(written(tmp_path, read_package(packages / f"{opset}.mlpackage"), NEW[name])).program
    )
    for weight in names:
        (decompressed,) = (one for key, one in plain.items() if key.startswith(weight))
        assert not np.array_equal(decompressed, WEIGHTS[weight]) or name == "palette of 8 bits"
        slack = 1e-6 if "palette" in name else 3e-4 if name == "int4 of blocks" else 1e-4
        # scales are rounded before or after they divide, which the 16 steps of small blocks show most
        assert error(ours[weight], weight) <= error(decompressed, weight) * (1 + slack) + 1e-12


def as_coremltools(folder, range_of):
    """int8 weights and activations, as coremltools writes them for inputs of these ranges."""
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.models import utils as _model_utils

    config = cto.OptimizationConfig(
        op_type_configs=dict.fromkeys(
            ("conv", "linear"), cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
        )
    )
    insert = PASS_REGISTRY["compression::insert_prefix_quantize_dequantize_pair"]
    insert.set_options([PassOption("config", config), PassOption("activation_stats", range_of)])
    model = _model_utils._apply_graph_pass(original("iOS17"), insert)
    model = cto.linear_quantize_weights(model, config)
    model.save(str(folder / "theirs.mlpackage"))
    return read_package(folder / "theirs.mlpackage")


def test_int8_activations_are_written_as_coremltools_writes_them(packages, tmp_path):
    from sd_compress import Activations, Collecting, Recipe, collect_activations
    from sd_mil.engines import Reference

    package = read_package(packages / "iOS17.mlpackage")
    name = package.program.main.inputs[0].name
    runs = [{name: RNG.standard_normal((1, 32, 4, 4)).astype(np.float16)} for _ in range(2)]
    inputs = collect_activations(package.program, runs, Collecting(engine=Reference()))
    scheme = Linear(activations=Activations(range="minmax"))
    made = compress(
        package.program, Recipe({"convolution": scheme, "product": scheme}), inputs=inputs
    ).program
    ranges = {
        one.value: {"rmin": one.histogram.values[0], "rmax": one.histogram.values[-1]}
        for weight in ("convolution", "product")
        for one in inputs[weight]
    }
    theirs = as_coremltools(tmp_path, ranges)

    def seen(program):
        """What is done, in what order, and with which scales."""
        constants = {
            out.name: op.attributes["val"]
            for op in program.main.body.operations
            if op.type == "const"
            for out in op.outputs
        }
        rows = []
        for op in program.main.body.operations:
            if op.type in ("quantize", "dequantize"):
                given = {key: constants.get(one[0].name) for key, one in op.inputs.items()}
                values = {key: np.asarray(one.value).tolist() for key, one in given.items() if one}
                rows.append((op.type, op.outputs[0].type, values))
            elif op.type == "constexpr_affine_dequantize":
                parts = ("quantized_data", "scale", "zero_point")
                rows.append((op.type, *(np.asarray(op.attributes[part].value).tolist() for part in parts)))
        return rows

    ours, others = seen(made), seen(theirs.program)
    activations = [one for one in ours if one[0] != "constexpr_affine_dequantize"]
    assert len(activations) == 4
    assert activations == [one for one in others if one[0] != "constexpr_affine_dequantize"]
    path = tmp_path / "ours.mlpackage"
    write_package(path, made, package.description, version=package.specification_version)
    expected, got = (
        MLModel(one, "reference").predict(runs[0]) for one in (tmp_path / "theirs.mlpackage", path)
    )
    for output, value in expected.items():
        assert np.allclose(got[output], value, rtol=0.01, atol=0.02 * np.abs(value).max())
    ct.models.MLModel(str(path), skip_model_load=True)
