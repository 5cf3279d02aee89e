"""A program in pieces computes bit for bit what the whole does, cut where the least crosses."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import (
    ChunkingError,
    Constant,
    Description,
    MLModel,
    Operation,
    Port,
    Program,
    TensorType,
    read_model,
    read_package,
    write_package,
)
from sd_mil.format import layout_of, write_pipeline
from sd_mil.ir import joined
from sd_mil.ir.program import Block, Function, Reference, Variable
from sd_mil.rewriting import chunked, crossing_in_fp16, crossing_in_fp32, piece_description

WIDE, NARROW = 64, 4


def product(name: str, source: str, rows: int, columns: int, seed: int) -> list[Operation]:
    """``name = source @ weight`` of [rows, columns]."""
    array = np.random.default_rng(seed).standard_normal((columns, rows)).astype(np.float32) / 8
    value = Constant(TensorType("fp32", array.shape), array, stored=array.nbytes)
    text = TensorType("string", ())
    const = Operation(
        "const", f"{name}_w", {}, (Variable(f"{name}_w", value.type),),
        {"name": Constant(text, f"{name}_w"), "val": value},
    )  # fmt: skip
    inputs = {"x": (Reference(source),), "weight": (Reference(f"{name}_w"),)}
    kind = TensorType("fp32", (2, columns))
    linear = Operation("linear", name, inputs, (Variable(name, kind),), {"name": Constant(text, name)})
    return [const, linear]


def chain(widths: list[int], *, skip: bool = False, seed: int = 0) -> Program:
    """Products one after another; with ``skip`` the first result is added to the last."""
    operations: list[Operation] = []
    last, kind = "x", TensorType("fp32", (2, widths[0]))
    for number, (rows, columns) in enumerate(itertools.pairwise(widths)):
        operations += product(f"y{number}", last, rows, columns, seed + number)
        last = f"y{number}"
    if skip:
        text = TensorType("string", ())
        given_ = {"x": (Reference("y0"),), "y": (Reference(last),)}
        output = Variable("sum", TensorType("fp32", (2, widths[-1])))
        operations.append(Operation("add", "sum", given_, (output,), {"name": Constant(text, "sum")}))
        last = "sum"
    body = Block((Variable("x", kind),), tuple(operations), (last,))
    return Program({"main": Function("main", "CoreML6", body)})


def described(program: Program) -> Description:
    function = program.main
    bare = Description((), (), short_description="a chain")
    return piece_description(bare, function)


def run_whole(program: Program, tmp_path: Path, value: np.ndarray) -> np.ndarray:
    write_package(tmp_path / "whole.mlpackage", program, described(program))
    (got,) = MLModel(tmp_path / "whole.mlpackage", "reference").predict({"x": value}).values()
    return got


def run_chain(pieces: tuple[Program, ...], whole: Program, folder: Path, value: np.ndarray) -> np.ndarray:
    values = {"x": value}
    for number, piece in enumerate(pieces):
        path = folder / f"{number}.mlpackage"
        write_package(path, piece, piece_description(described(whole), piece.main))
        model = MLModel(path, "reference")
        values |= model.predict({name: values[name] for name in model.inputs})
    return values[whole.main.outputs[0]]


VALUE = np.linspace(-1, 1, 2 * WIDE, dtype=np.float32).reshape(2, WIDE)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([4, 8, 16, 32]), min_size=3, max_size=6), st.integers(1, 4), st.booleans())
def test_pieces_compute_what_the_whole_does(
    tmp_path_factory: pytest.TempPathFactory, widths: list[int], count: int, skip: bool
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    widths = [WIDE, widths[0], *widths, widths[0]]
    program = chain(widths, skip=skip)
    pieces = chunked(program, count=count)
    assert len(pieces) == count
    np.testing.assert_array_equal(
        run_chain(pieces, program, folder, VALUE), run_whole(program, folder, VALUE)
    )
    weights = [blob for piece in pieces for blob in layout_of(piece).blobs]
    assert len(weights) == len(layout_of(program).blobs)


def test_the_cut_is_where_the_least_crosses() -> None:
    """By trying all: no other cut that keeps the weights as even has fewer bytes across."""
    program = chain([WIDE, WIDE, WIDE, NARROW, WIDE, WIDE, WIDE])
    first, second = chunked(program, count=2)
    (boundary,) = first.main.outputs
    assert boundary == "y2"  # of 4 numbers; the others have 64
    assert [one.name for one in second.main.inputs] == ["y2"]


def test_a_budget_of_bytes() -> None:
    program = chain([WIDE] * 9)
    most = layout_of(program).size // 3
    pieces = chunked(program, most=most)
    sizes = [layout_of(piece).size for piece in pieces]
    assert max(sizes) <= most
    assert len(pieces) == 4  # of eight weights each of two in a third, with its records
    with pytest.raises(ChunkingError, match=r"weights of 'y0' \(linear\) alone: allow more"):
        chunked(program, most=1000)


def test_functions_are_cut_at_the_same_weights() -> None:
    program = joined({"a": chain([WIDE] * 5), "b": chain([WIDE] * 5)})
    first, second = chunked(program, count=2)
    for piece in (first, second):
        assert list(piece.functions) == ["a", "b"]
        assert len(layout_of(piece).blobs) == 2


@pytest.mark.parametrize("options", [{}, {"count": 0}, {"count": 1, "most": 1}])
def test_what_is_asked_for_is_one_thing(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a count or a most"):
        chunked(chain([4, 4, 4]), **options)


def test_more_pieces_than_operations() -> None:
    with pytest.raises(ChunkingError, match="ask for fewer"):
        chunked(chain([4, 4, 4]), count=9)


def test_an_output_is_not_passed_on() -> None:
    """Who joins chunks takes what none of them takes for the outputs: a cut may not hide one."""
    program = chain([WIDE] * 4)
    body = program.main.body
    both = Block(body.inputs, body.operations, ("y0", "y2"))
    pieces = chunked(Program({"main": Function("main", "CoreML6", both)}), count=2)
    assert "y0" not in {one.name for one in pieces[1].main.inputs}


def test_a_pipeline_of_the_pieces(tmp_path: Path) -> None:
    program = chain([WIDE, 16, 32, 8], skip=False)
    pieces = chunked(program, count=3)
    said = described(program)
    models = {f"piece{n}": (piece, piece_description(said, piece.main)) for n, piece in enumerate(pieces)}
    path = tmp_path / "pipeline.mlpackage"
    write_pipeline(path, models, said, identity="pipeline")
    assert list(read_model(path).models) == list(models)
    (got,) = MLModel(path, "reference").predict({"x": VALUE}).values()
    np.testing.assert_array_equal(got, run_whole(program, tmp_path, VALUE))


def test_coremltools_loads_the_pipeline(tmp_path: Path) -> None:
    ct = pytest.importorskip("coremltools")
    program = chain([WIDE, 16, 8])
    pieces, said = chunked(program, count=2), described(program)
    models = {f"piece{n}": (piece, piece_description(said, piece.main)) for n, piece in enumerate(pieces)}
    path = tmp_path / "pipeline.mlpackage"
    write_pipeline(path, models, said)
    pipeline = ct.utils.load_spec(str(path)).pipeline
    assert [len(one.mlProgram.functions) for one in pipeline.models] == [1, 1]
    assert list(pipeline.names) == ["piece0", "piece1"]


def test_metadata_and_ports_of_the_whole_stay() -> None:
    program = chain([WIDE, 16, 8])
    said = Description((Port("x", (2, WIDE), "float32", "what goes in"),), (), short_description="a chain")
    first = piece_description(said, chunked(program, count=2)[0].main)
    assert first.inputs == said.inputs
    assert first.short_description == "a chain"
    assert [str(port) for port in first.outputs] == ["y0: float32[2, 16]"]


def test_pieces_are_packages(tmp_path: Path) -> None:
    program = chain([WIDE, 16, 8])
    piece = chunked(program, count=2)[1]
    write_package(tmp_path / "p.mlpackage", piece, piece_description(described(program), piece.main))
    assert [one.name for one in read_package(tmp_path / "p.mlpackage").description.inputs] == ["y0"]


def in_fp16(scales: list[float]) -> Program:
    """Products in fp16 whose values shrink and grow by these factors, from and to fp32."""
    text, wide, narrow = TensorType("string", ()), TensorType("fp32", (2, 8)), TensorType("fp16", (2, 8))
    operations: list[Operation] = []

    def cast(name: str, source: str, dtype: str) -> None:
        said = {"name": Constant(text, f"{name}_dtype"), "val": Constant(text, dtype)}
        operations.append(Operation("const", f"{name}_dtype", {}, (Variable(f"{name}_dtype", text),), said))
        inputs = {"x": (Reference(source),), "dtype": (Reference(f"{name}_dtype"),)}
        output = Variable(name, narrow if dtype == "fp16" else wide)
        operations.append(Operation("cast", name, inputs, (output,), {"name": Constant(text, name)}))

    cast("y", "x", "fp16")
    last = "y"
    for number, scale in enumerate(scales):
        name = f"y{number}"
        array = (np.eye(8) * scale).astype(np.float16)
        value = Constant(TensorType("fp16", array.shape), array, stored=array.nbytes)
        said = {"name": Constant(text, f"{name}_w"), "val": value}
        operations.append(Operation("const", f"{name}_w", {}, (Variable(f"{name}_w", value.type),), said))
        inputs = {"x": (Reference(last),), "weight": (Reference(f"{name}_w"),)}
        operations.append(
            Operation("linear", name, inputs, (Variable(name, narrow),), {"name": Constant(text, name)})
        )
        last = name
    cast("out", last, "fp32")
    return Program(
        {"main": Function("main", "CoreML6", Block((Variable("x", wide),), tuple(operations), ("out",)))}
    )


@pytest.mark.parametrize("scales", [[1e-3, 1e-3, 1e-3, 1e3, 1e3, 1e3], [1e2, 1e2, 1e2, 1e-2, 1e-2, 1e-2]])
def test_what_fp16_would_lose_crosses_in_fp32(tmp_path: Path, scales: list[float]) -> None:
    """Values of a billionth, or a million, between two pieces, on an engine that computes in fp32."""
    pytest.importorskip("openvino")
    program = in_fp16(scales)
    pieces = chunked(program, count=2)
    ((name,),) = crossing_in_fp16(pieces).values()
    wide = crossing_in_fp32(pieces, {"main": [name]})
    assert [one.name for one in wide[1].main.inputs] == [f"{name}_fp32"] == list(wide[0].main.outputs)
    assert crossing_in_fp16(wide) == {"main": ()}
    value = np.linspace(1, 2, 16, dtype=np.float32).reshape(2, 8)

    def run(programs: tuple[Program, ...], folder: Path) -> np.ndarray:
        values = {"x": value}
        for number, one in enumerate(programs):
            path = folder / f"{number}.mlpackage"
            write_package(path, one, piece_description(described(program), one.main))
            model = MLModel(path, "portable")
            values |= model.predict({port: values[port] for port in model.inputs})
        return values["out"]

    with np.errstate(over="ignore"):
        whole, narrow, kept = (
            run(programs, tmp_path / str(number))
            for number, programs in enumerate(((program,), pieces, wide))
        )
    np.testing.assert_allclose(kept, whole, rtol=1e-5)
    assert not np.allclose(narrow, whole, rtol=1e-1)
