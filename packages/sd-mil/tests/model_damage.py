"""Valid models of every kind, and ways to damage them: for the fuzz tests and for ``tools/fuzz_mil.py``.

Everything is a function of a list of small numbers, so that a fuzzer or hypothesis can drive it.
"""

from dataclasses import dataclass
from pathlib import Path

import mil_graphs as graphs
import numpy as np
from sd_mil import (
    Block,
    Constant,
    Description,
    DictionaryType,
    EnumeratedShapes,
    Function,
    ListType,
    MLModel,
    Operation,
    Port,
    Program,
    Reference,
    SdMilError,
    ShapeRange,
    StateType,
    TensorType,
    Variable,
    print_program,
    write_package,
)
from sd_mil.format import read_model
from sd_mil.format.description_writer import encode_description
from sd_mil.format.encoding import double, field, integer, text, varint
from sd_mil.format.writer import encode_model, layout_of

#: What breaks readers: limits of integer types, lengths, and the words of both formats.
_NUMBERS = [0, 1, 2, 7, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
_WORDS = [
    b"?",
    b"-1",
    b"99999999999999999999",
    b"1e999",
    b"nan",
    b"0x1p+99999",
    b'"',
    b"\\",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b"<",
    b">",
    b",",
    b";",
    b"=",
    b"->",
    b"tensor<fp16, [4294967296, 4294967296]>",
    b"fp16",
    b"int4",
    b"string",
    b"state<tensor<fp16, [2]>>",
    b"list<tensor<fp16, []>, 9>",
    b"BLOBFILE",
    b"tile",
    b"fill",
    b"x",
    b"y",
    b"@model_path/../weight.bin",
    b"const",
    b"while_loop",
    b"\xff",
    b"",
]


@dataclass
class Seed:
    """A model on disk, and the files of it that are damaged."""

    path: Path
    files: dict[Path, bytes]


def seeds(folder: Path) -> list[Seed]:
    """One model of every kind that is read, each with what it is made of."""
    made = [_package(folder, index, *parts) for index, parts in enumerate(_programs())]
    made += [_compiled(folder, seed, dialect) for seed, dialect in zip(made[:2], ("1.0", "1.3"), strict=True)]
    return [*made, _pipeline(folder)]


def outcome(all_seeds: list[Seed], choices: list[int], data: bytes) -> str:
    """Damage a seed, read, compile and run it; ``ran`` or the name of the typed error."""
    seed = all_seeds[choices[0] % len(all_seeds)]
    files = list(seed.files)
    file = files[choices[1] % len(files)] if choices[1] > 100 else files[0]
    file.write_bytes(damaged(seed.files[file], file.name, choices[2:], data[2:]))
    try:
        return _run(seed.path)
    except SdMilError as error:
        return type(error).__name__
    finally:
        file.write_bytes(seed.files[file])


def _run(path: Path) -> str:
    model = MLModel(read_model(path), engine="reference")
    inputs = {name: _input(port) for name, port in model.inputs.items() if not port.optional}
    model.predict(inputs, model.make_state() if model.states else None)
    return "ran"


def _input(port: Port) -> object:
    if port.kind in ("int64", "double"):
        return 1
    if np.prod([float(size or 0) for size in port.shape]) > 1e6:
        raise SdMilError("expected a smaller input")
    return np.ones([size or 0 for size in port.shape], port.dtype)


def damaged(content: bytes, name: str, choices: list[int], data: bytes) -> bytes:
    """The content after a few edits; ``choices`` says which, ``data`` is what may be spliced in."""
    for kind, low, high, what in zip(*[iter(choices)] * 4, strict=False):
        place = (low << 8 | high) % (len(content) + 1)
        content = _EDITS[kind % len(_EDITS)](content, place, what, data, name)
    return content


def _flip(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    edited = bytearray(content or b"\0")
    edited[place % len(edited)] ^= 1 << what % 8
    return bytes(edited)


def _number(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    """A varint, or a little-endian integer, in the place of another."""
    number = _NUMBERS[what % len(_NUMBERS)]
    if what & 16:
        encoded = number.to_bytes(8, "little")
        return content[:place] + encoded + content[place + 8 :]
    return content[:place] + varint(number) + content[place + 1 :]


def _word(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    """A word in the place of the next one (or of nothing)."""
    end = place
    while what & 64 and end < len(content) and chr(content[end]).isalnum():
        end += 1
    return content[:place] + _WORDS[what % len(_WORDS)] + content[end:]


def _cut(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    return content[:place] + content[place + what :]


def _truncate(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    return (
        content[:place] if what & 1 else content[:place] + content[place : place + what] * 3 + content[place:]
    )


def _splice(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    return content[:place] + data[: what % 32] + content[place:]


def _copy(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    """A part of the content over another."""
    source = what * 37 % (len(content) + 1)
    size = what % 23 + 1
    return content[:place] + content[source : source + size] + content[place + size :]


def _field(content: bytes, place: int, what: int, data: bytes, name: str) -> bytes:
    """Edit one field of a protobuf and mend the lengths of all messages around it."""
    spans = _spans(content, 0, len(content), ()) if name == "model.mlmodel" else []
    if not spans:
        return _flip(content, place, what, data, name)
    start, end, parents = spans[place % len(spans)]
    replacement = [
        b"",
        content[start:end] * 2,
        varint(_NUMBERS[what % len(_NUMBERS)]),
        _WORDS[what % len(_WORDS)],
    ][what % 4]
    return _mended(content, start, end, replacement, parents)


def _spans(content: bytes, start: int, end: int, parents: tuple) -> list:
    """Payloads of length-delimited fields, each with those around it: a guess at what is a message."""
    found = []
    while start < end and len(found) < 4000:
        key, start = _varint(content, start, end)
        if key is None:
            return []
        if key & 7 == 0:
            _, start = _varint(content, start, end)
        elif key & 7 == 2:
            size, inner = _varint(content, start, end)
            if size is None or inner + size > end:
                return []
            found.append((inner, inner + size, (*parents, start)))
            found += _spans(content, inner, inner + size, (*parents, start)) if len(parents) < 12 else []
            start = inner + size
        else:
            start += 8 if key & 7 == 1 else 4 if key & 7 == 5 else end
    return found if start == end else []


def _varint(content: bytes, start: int, end: int) -> tuple:
    value = 0
    for shift in range(0, 63, 7):
        if start >= end:
            break
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    return None, start


def _mended(content: bytes, start: int, end: int, replacement: bytes, parents: tuple) -> bytes:
    for at in reversed(parents):
        size, inner = _varint(content, at, len(content))
        before, after = content[inner:start], content[end : inner + size]
        replacement = varint(len(before + replacement + after)) + before + replacement + after
        start, end = at, inner + size
    return content[:start] + replacement + content[end:]


_EDITS = [_flip, _number, _word, _cut, _truncate, _splice, _copy, _field, _field, _field]


def _package(folder: Path, index: int, program: Program, described) -> Seed:
    path = write_package(folder / f"seed{index}.mlpackage", program, described, version=9).path
    files = (graphs.model_file(path), graphs.weight_file(path), path / "Manifest.json")
    return Seed(path, {file: file.read_bytes() for file in files})


def _compiled(folder: Path, seed: Seed, dialect: str) -> Seed:
    root = folder / f"compiled{dialect}.mlmodelc"
    (root / "weights").mkdir(parents=True)
    package = read_model(seed.path)
    (root / "model.mil").write_text(print_program(package.program, dialect=dialect))
    (root / "weights" / "weight.bin").write_bytes(seed.files[graphs.weight_file(seed.path)])
    (root / "coremldata.bin").write_bytes(core_data(encode_description(package.description, {}, "")))
    files = (root / "model.mil", root / "coremldata.bin", root / "weights" / "weight.bin")
    return Seed(root, {file: file.read_bytes() for file in files})


def core_data(description: bytes, version: int = 7) -> bytes:
    """A coremldata.bin."""
    numbers = [one.to_bytes(8, "little") for one in (7, version, len(description))]
    head = (502).to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes(20)
    return head + numbers[0] + b"generic" + numbers[1] + bytes(24) + numbers[2] + description + bytes(16)


def _pipeline(folder: Path) -> Seed:
    path = folder / "pipeline"
    (path / "weights").mkdir(parents=True)
    shapes = {"c": (4, 2), "b": (4, 4)}
    ports = tuple(Port(name, shape, "float32") for name, shape in shapes.items())
    made = graphs.program({name: ("fp32", *shape) for name, shape in shapes.items()}, [], list(shapes))
    first = encode_model(made, Description(ports, ports), layout_of(made))
    outputs = tuple(
        Port(name, (), "float32", flexibility=ShapeRange(((0, None), (2, 2)))) for name in ("k", "l")
    )
    names = zip((200, 201, 210, 211), "cbkl", strict=True)
    suppression = (
        field(1, integer(1, 1)) + double(110, 0.5) + double(111, 0.2) + b"".join(text(*one) for one in names)
    )
    second = field(2, encode_description(Description(ports, outputs), {}, "")) + field(610, suppression)
    whole = field(1, first) + field(1, second) + text(2, "first") + text(2, "second")
    described = encode_description(Description(ports, outputs), {}, "")
    file = path / "model.mlmodel"
    file.write_bytes(integer(1, 7) + field(2, described) + field(202, whole))
    return Seed(file, {file: file.read_bytes()})


def _programs():
    yield graphs.affine(), graphs.description(graphs.affine())
    yield _stateful()
    yield _flexible()
    yield _classifier()
    yield _compressed()
    yield _looping()


def _stateful():
    kind = TensorType("fp16", (2,))
    operations = (
        graphs.call("read_state", "old", ("fp16", 2), input="acc"),
        graphs.call("add", "sum", ("fp16", 2), x="old", y="x"),
        Operation("write_state", "write", {"input": (Reference("acc"),), "data": (Reference("sum"),)}, ()),
    )
    inputs = (Variable("x", kind), Variable("acc", StateType(kind)))
    port = Port("x", (2,), "float16")
    made = Program({"main": Function("main", "CoreML8", Block(inputs, operations, ("sum",)))})
    state = (Port("acc", (2,), "float16", kind="state"),)
    return made, Description((port,), (Port("sum", (2,), "float16"),), states=state)


def _flexible():
    """Everything that makes big tensors of small ones."""
    made = graphs.program(
        {"x": ("fp32", 1, 3, None, None), "b": ("fp32", None, None)},
        [
            graphs.call("tile", "t", ("fp32", None, None), x="b", reps=graphs.tensor(np.int32([2, 3]))),
            graphs.call(
                "fill",
                "f",
                ("fp32", 2, 2),
                shape=graphs.tensor(np.int32([2, 2])),
                value=graphs.tensor(np.float32(1)),
            ),
            graphs.call(
                "upsample_nearest_neighbor",
                "u",
                ("fp32", 1, 3, None, None),
                x="x",
                scale_factor_height=graphs.tensor(np.int32(2)),
                scale_factor_width=graphs.tensor(np.int32(2)),
            ),
            graphs.call(
                "pad",
                "p",
                ("fp32", None, None),
                x="t",
                pad=graphs.tensor(np.int32([1, 1, 0, 2])),
                mode=graphs.tensor("constant"),
                constant_val=graphs.tensor(np.float32(0)),
            ),
            graphs.call(
                "range_1d",
                "r",
                ("int32", None),
                start=graphs.tensor(np.int32(0)),
                end=graphs.tensor(np.int32(5)),
                step=graphs.tensor(np.int32(1)),
            ),
            graphs.call(
                "one_hot",
                "o",
                ("int32", None, 4),
                indices="r",
                one_hot_vector_size=graphs.tensor(np.int32(4)),
                axis=graphs.tensor(np.int32(-1)),
                on_value=graphs.tensor(np.int32(1)),
                off_value=graphs.tensor(np.int32(0)),
            ),
            graphs.call("reshape", "s", ("fp32", 4), x="f", shape=graphs.tensor(np.int32([4]))),
        ],
        ["u", "p", "o", "s"],
    )
    shapes = EnumeratedShapes(((1, 3, 4, 6), (1, 3, 8, 8)))
    inputs = (
        Port("x", (1, 3, 4, 6), "float32", kind="image", color="BGR", flexibility=shapes),
        Port("b", (1, 3), "float32", flexibility=ShapeRange(((1, 2), (3, None))), optional=True, default=2),
    )
    outputs = (
        Port("u", (1, 3, None, None), "float32"),
        Port("p", (None, None), "float32"),
        Port("o", (None, 4), "int32"),
        Port("s", (4,), "float32"),
    )
    return made, Description(inputs, outputs)


def _classifier():
    key = TensorType("string", ())
    classes = Constant(ListType(key, 3), ("cat", "dog", "cow"))
    outputs = Variable("label", key), Variable("all", DictionaryType(key, TensorType("fp64", ())))
    classify = Operation(
        "classify", "c", {"probabilities": (Reference("x"),), "classes": (classes,)}, outputs
    )
    body = Block((Variable("x", TensorType("fp32", (1, 3))),), (classify,), ("label", "all"))
    ports = (Port("label", (), "str", kind="string"), Port("all", (), "str", kind="dictionary"))
    return Program({"main": Function("main", "CoreML6", body)}), Description(
        (Port("x", (1, 3), "float32"),), ports, label="label"
    )


def _stored(dtype: str, shape: tuple[int, ...], array: np.ndarray) -> Constant:
    return Constant(TensorType(dtype, shape), array, stored=array.nbytes)


def _compressed():
    """A palette, blocks of integers, and a sparse tensor."""
    weights = [
        graphs.call(
            "constexpr_lut_to_dense",
            "w",
            ("fp16", 2, 4),
            indices=_stored("uint2", (2, 4), np.uint8([0x1B, 0xE4])),
            lut=_stored("fp16", (1, 1, 4, 1), np.float16([1, 2, 3, 4]).reshape(1, 1, 4, 1)),
        ),
        graphs.call(
            "constexpr_blockwise_shift_scale",
            "v",
            ("fp16", 2, 4),
            data=_stored("int4", (2, 4), np.uint8([0x1B, 0xE4, 0x77, 0x88])),
            scale=_stored("fp16", (2, 2), np.float16([[1, 2], [3, 4]])),
        ),
        graphs.call(
            "constexpr_sparse_to_dense",
            "z",
            ("fp16", 2, 4),
            nonzero_data=_stored("fp16", (3,), np.float16([1, 2, 3])),
            mask=_stored("uint1", (2, 4), np.uint8([0b10010010])),
        ),
    ]
    older = {
        "indices": _stored("uint8", (2,), np.uint8([0x1B, 0xE4])),
        "lut": _stored("fp16", (4,), np.float16([1, 2, 3, 4])),
        "shape": graphs.tensor(np.uint32([2, 4])),
    }
    out = (graphs.variable("o", ("fp16", 2, 4)),)
    weights.append(Operation("constexpr_lut_to_dense", "o", {}, out, older))
    sums = [
        graphs.call("add", "a", ("fp16", 2, 4), x="w", y="v"),
        graphs.call("add", "b", ("fp16", 2, 4), x="a", y="z"),
        graphs.call("add", "c", ("fp16", 2, 4), x="b", y="o"),
        graphs.call("mul", "y", ("fp16", 2, 4), x="c", y="x"),
    ]
    made = graphs.program({"x": ("fp16", 2, 4)}, [*weights, *sums], ["y"])
    return made, graphs.description(made)


def _looping():
    """i = 0; while i < 3: i += 1."""
    one = graphs.variable("i", ("int32",))
    less = graphs.call("less", "go", ("bool",), x="j", y=graphs.tensor(np.int32(3)))
    more = graphs.call("add", "k", ("int32",), x="i", y=graphs.tensor(np.int32(1)))
    blocks = (
        Block((graphs.variable("j", ("int32",)),), (less,), ("go",)),
        Block((one,), (more,), ("k",)),
    )
    loop = Operation(
        "while_loop",
        "loop",
        {"loop_vars": (Reference("x"),)},
        (graphs.variable("y", ("int32",)),),
        {},
        blocks,
    )
    made = graphs.program({"x": ("int32",)}, [loop], ["y"])
    port = {"dtype": "int64", "kind": "int64"}
    return made, Description((Port("x", (), **port),), (Port("y", (), **port),))
