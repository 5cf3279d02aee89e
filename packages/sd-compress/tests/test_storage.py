"""Weights are counted as they are stored, whatever chain decompresses them."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_compress import StorageRow, storage, storage_of
from sd_mil import (
    Argument,
    Block,
    Constant,
    Description,
    Function,
    Operation,
    Package,
    Program,
    Reference,
    TensorType,
    Variable,
    read_package,
)

REFERENCE = Path(__file__).resolve().parents[4] / "shared/reference/reference-packages"
README = Path(__file__).resolve().parents[1] / "README.md"
BITS = {"fp16": 16, "fp32": 32, "int8": 8, "uint8": 8, "uint1": 1, "uint4": 4, "uint6": 6, "uint32": 32}


def stored(dtype: str, *shape: int) -> Constant:
    """A constant in weight.bin."""
    size = math.ceil(math.prod(shape) * BITS[dtype] / 8)
    return Constant(TensorType(dtype, shape), np.zeros(size, np.uint8), stored=size)


def inline(dtype: str, *shape: int) -> Constant:
    return Constant(TensorType(dtype, shape), np.zeros(shape, np.float16))


def const(name: str, value: Constant) -> Operation:
    return Operation("const", name, {}, (Variable(name, value.type),), {"val": value})


def constexpr(kind: str, name: str, *shape: int, **parameters: Constant | str) -> Operation:
    """iOS16 style where parameters are constants, iOS18 style where they are names."""
    inputs: dict[str, tuple[Argument, ...]] = {
        key: (Reference(value),) for key, value in parameters.items() if isinstance(value, str)
    }
    attributes = {key: value for key, value in parameters.items() if isinstance(value, Constant)}
    output = Variable(name, TensorType("fp16", shape))
    return Operation(f"constexpr_{kind}", name, inputs, (output,), attributes)


def package(*operations: Operation, uses: str = "w", weight_bytes: int = 0) -> Package:
    kind = TensorType("fp16", (1,))
    uses_them = Operation(
        "concat", "y", {"values": tuple(Reference(name) for name in uses.split())}, (Variable("y", kind),)
    )
    main = Function("main", "CoreML6", Block((), (*operations, uses_them), ("y",)))
    return Package("p", 7, Description((), ()), Program({"main": main}), weight_bytes)


CHAINS = {
    "fp16": ([const("w", stored("fp16", 8, 16))], 256),
    "fp32": ([const("w", stored("fp32", 8, 16))], 512),
    "6-bit palette": (
        [
            constexpr(
                "lut_to_dense",
                "w",
                8,
                16,
                indices=stored("uint8", 96),
                lut=stored("fp16", 64),
                shape=inline("uint32", 2),
            )
        ],
        96 + 128,
    ),
    "int8 linear": (
        [
            constexpr(
                "affine_dequantize",
                "w",
                8,
                16,
                quantized_data=stored("int8", 8, 16),
                scale=stored("fp16", 8),
                zero_point=inline("int8", 8),
            )
        ],
        128 + 16,
    ),
    "sparse fp16": (
        [constexpr("sparse_to_dense", "w", 8, 16, nonzero_data=stored("fp16", 40), mask=stored("uint8", 16))],
        80 + 16,
    ),
    "4-bit palette": (  # iOS18: parameters are values, the palette itself is scaled integers
        [
            const("i", stored("uint4", 8, 16)),
            const("q", stored("int8", 2, 1, 16, 1)),
            const("s", stored("fp16", 1, 1, 1, 1)),
            constexpr("blockwise_shift_scale", "l", 2, 1, 16, 1, data="q", scale="s"),
            constexpr("lut_to_dense", "w", 8, 16, indices="i", lut="l"),
        ],
        64 + 32 + 2,
    ),
    "uint4 linear": (
        [
            const("d", stored("uint4", 8, 16)),
            const("s", stored("fp16", 8, 4)),
            constexpr("blockwise_shift_scale", "w", 8, 16, data="d", scale="s"),
        ],
        64 + 64,
    ),
    "sparse 1-bit palette": (
        [
            const("m", stored("uint1", 8, 16)),
            const("i", stored("uint1", 40)),
            const("l", stored("fp16", 1, 1, 2, 1)),
            Operation(
                "constexpr_lut_to_sparse",
                "pair",
                {
                    "indices_mask": (Reference("m"),),
                    "indices_nonzero_data": (Reference("i"),),
                    "lut": (Reference("l"),),
                },
                (
                    Variable("pair_mask", TensorType("uint1", (8, 16))),
                    Variable("pair_data", TensorType("fp16", (40,))),
                ),
            ),
            constexpr("sparse_to_dense", "w", 8, 16, nonzero_data="pair_data", mask="pair_mask"),
        ],
        16 + 5 + 4,
    ),
    "int8 linear cast": (
        [
            constexpr(
                "affine_dequantize", "h", 8, 16, quantized_data=stored("int8", 8, 16), scale=inline("fp16")
            ),
            constexpr("cast", "w", 8, 16, source_val="h"),
        ],
        128,
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_weight_is_what_lies_in_the_file(name: str) -> None:
    operations, size = CHAINS[name]
    report = storage(package(*operations, weight_bytes=4096))
    assert report.rows == (StorageRow(name.removesuffix(" cast"), 1, 128, size),)
    assert report.total.bits_per_weight == 8 * size / 128
    assert report.file_bytes == 4096


def test_rows_add_up_and_the_largest_comes_first() -> None:
    several = package(
        const("a", stored("fp16", 10)),
        const("b", stored("fp32", 100)),
        const("c", stored("fp16", 30)),
        const("small", inline("fp16", 2)),
        uses="a b c small",
    )
    report = storage(several)
    assert report.rows == (StorageRow("fp32", 1, 100, 400), StorageRow("fp16", 2, 40, 80))
    assert report.total == StorageRow("all", 3, 140, 480)


def test_a_shared_blob_is_counted_once() -> None:
    blob = stored("fp16", 10)
    report = storage(package(const("a", blob), const("b", blob), uses="a b a"))
    assert report.rows == (StorageRow("fp16", 2, 20, 20),)


def test_what_functions_share_is_counted_once() -> None:
    blob, own = stored("fp16", 10), stored("fp32", 5)
    one = package(const("a", blob), uses="a").program.main
    two = package(const("a", blob), const("b", own), uses="a b").program.main
    made = Program({"main": one, "other": two})
    assert storage_of(made).rows == (StorageRow("fp32", 1, 5, 20), StorageRow("fp16", 1, 10, 20))


def test_what_nothing_uses_is_no_weight() -> None:
    report = storage(package(const("a", stored("fp16", 10)), const("b", inline("fp16", 2)), uses="b"))
    assert report.rows == ()
    assert report.total == StorageRow("all", 0, 0, 0)
    assert report.total.bits_per_weight == 0.0


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference packages")
@pytest.mark.parametrize(
    "path", sorted(path.relative_to(REFERENCE) for path in REFERENCE.glob("*/*.mlpackage"))
)
def test_the_file_is_accounted_for(path: Path) -> None:
    """Blobs, their records of 64 bytes, and padding: nothing else is in a weight file."""
    read = read_package(REFERENCE / path)
    report = storage(read)
    overhead = report.file_bytes - report.total.stored_bytes
    assert 64 <= overhead <= 64 + 127 * (report.total.weights + 8)
    assert {row.encoding for row in report.rows} <= {"fp16", "fp32", "int32", "uint16"}


@pytest.fixture(scope="module")
def coremltools() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ct = pytest.importorskip("coremltools")
        pytest.importorskip("coremltools.optimize")
    return ct


def _palettized(ct: Any, model: Any) -> Any:
    optimize = ct.optimize.coreml
    config = optimize.OptimizationConfig(
        optimize.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=1)
    )
    return optimize.palettize_weights(model, config)


def _quantized(ct: Any, model: Any) -> Any:
    optimize = ct.optimize.coreml
    config = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig(weight_threshold=1))
    return optimize.linear_quantize_weights(model, config)


def _pruned(ct: Any, model: Any) -> Any:
    optimize = ct.optimize.coreml
    config = optimize.OptimizationConfig(
        optimize.OpMagnitudePrunerConfig(target_sparsity=0.75, weight_threshold=1)
    )
    return optimize.prune_weights(model, config)


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
@pytest.mark.parametrize(
    ("compress", "encoding", "bits"),
    [
        (_palettized, "4-bit palette", 4),
        (_quantized, "int8 linear", 8),
        (_pruned, "sparse fp16", 16 / 4 + 1),
    ],
)
def test_what_coremltools_compressed(
    coremltools: Any,
    tmp_path: Path,
    target: str,
    compress: Callable[[Any, Any], Any],
    encoding: str,
    bits: float,
) -> None:
    ct = coremltools
    deployment = getattr(ct.target, target)
    weight = np.random.RandomState(0).randn(128, 256).astype(np.float32)
    builder = ct.converters.mil.Builder

    @builder.program(input_specs=[builder.TensorSpec(shape=(1, 256))], opset_version=deployment)
    def program(x: Any) -> Any:
        return builder.linear(x=x, weight=weight)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(program, minimum_deployment_target=deployment, skip_model_load=True)
        compress(ct, model).save(str(tmp_path / "m.mlpackage"))
    report = storage(read_package(tmp_path / "m.mlpackage"))
    (row,) = (row for row in report.rows if row.encoding == encoding)
    assert row.elements == 128 * 256
    assert bits * 0.99 < row.bits_per_weight < bits * 1.05


def test_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(block, str(README), "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == "4-bit palette: 1 weight, 2080 B, 4.06 bits\n"
