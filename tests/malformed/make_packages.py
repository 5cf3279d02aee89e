"""Make ``packages/``: small ``.mlpackage`` folders, each wrong in one way that its name says.

Run from the repository's root: ``uv run python tests/malformed/make_packages.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from sd_mil import (
    Block,
    Constant,
    Description,
    Function,
    Operation,
    Port,
    Program,
    Reference,
    TensorType,
    Variable,
    write_package,
)

FOLDER = Path(__file__).parent / "packages"

HALF = TensorType("fp16", (2, 3))
WEIGHT = Constant(HALF, np.arange(6, dtype=np.float16).reshape(2, 3), stored=12)
PORTS = Description((Port("x", (2, 3), "float16"),), (Port("y", (2, 3), "float16"),))

#: Edits of the files of a good package.
FILE_EDITS: dict[str, Callable[[Path], None]] = {}
#: Edits of a good program, written as they are.
PROGRAM_EDITS: dict[str, Callable[[], tuple[Program, Description]]] = {}


def on_files(edit: Callable[[Path], None]) -> Callable[[Path], None]:
    FILE_EDITS[edit.__name__] = edit
    return edit


def on_program(edit: Callable[[], tuple[Program, Description]]) -> Callable[[], tuple[Program, Description]]:
    PROGRAM_EDITS[edit.__name__] = edit
    return edit


def constant(name: str = "w", value: Constant = WEIGHT, kind: TensorType = HALF) -> Operation:
    return Operation("const", name, {}, (Variable(name, kind),), {"val": value})


def add(x: str = "x", y: str = "w", out: str = "y", kind: str = "add") -> Operation:
    return Operation(kind, out, {"x": (Reference(x),), "y": (Reference(y),)}, (Variable(out, HALF),))


def program(*operations: Operation, outputs: tuple[str, ...] = ("y",)) -> Program:
    return Program({"main": Function("main", "CoreML6", Block((Variable("x", HALF),), operations, outputs))})


def model(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def weights(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def patch(file: Path, offset: int, data: bytes) -> None:
    content = bytearray(file.read_bytes())
    content[offset : offset + len(data)] = data
    file.write_bytes(content)


def edit_manifest(package: Path, edit: Callable[[dict], object]) -> None:
    file = package / "Manifest.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content, indent=4))


def set_model_path(package: Path, path: str) -> None:
    edit_manifest(package, lambda m: m["itemInfoEntries"][m["rootModelIdentifier"]].update(path=path))


@on_files
def manifest_missing(package: Path) -> None:
    (package / "Manifest.json").unlink()


@on_files
def manifest_is_not_json(package: Path) -> None:
    (package / "Manifest.json").write_text("{")


@on_files
def manifest_nested_too_deep(package: Path) -> None:
    (package / "Manifest.json").write_text("[" * 5000)


@on_files
def manifest_without_root(package: Path) -> None:
    edit_manifest(package, lambda m: m.pop("rootModelIdentifier"))


@on_files
def manifest_names_a_missing_item(package: Path) -> None:
    edit_manifest(package, lambda m: m.update(rootModelIdentifier="nobody"))


@on_files
def manifest_path_leads_out(package: Path) -> None:
    set_model_path(package, "../../../make_packages.py")


@on_files
def manifest_path_is_absolute(package: Path) -> None:
    set_model_path(package, "/etc/hostname")


@on_files
def model_missing(package: Path) -> None:
    model(package).unlink()


@on_files
def model_is_a_folder(package: Path) -> None:
    model(package).unlink()
    model(package).mkdir()
    (model(package) / "file").write_bytes(b"")


@on_files
def model_empty(package: Path) -> None:
    model(package).write_bytes(b"")


@on_files
def model_truncated(package: Path) -> None:
    model(package).write_bytes(model(package).read_bytes()[:-7])


@on_files
def model_ends_within_a_number(package: Path) -> None:
    model(package).write_bytes(model(package).read_bytes() + b"\x08\x80\x80")


@on_files
def model_number_never_ends(package: Path) -> None:
    model(package).write_bytes(b"\x08" + b"\xff" * 40)


@on_files
def model_length_beyond_the_file(package: Path) -> None:
    model(package).write_bytes(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f")


@on_files
def model_is_a_neural_network(package: Path) -> None:
    model(package).write_bytes(b"\x08\x04\xa2\x1f\x00")


@on_files
def weights_missing(package: Path) -> None:
    weights(package).unlink()


@on_files
def weights_empty(package: Path) -> None:
    weights(package).write_bytes(b"")


@on_files
def weights_truncated(package: Path) -> None:
    weights(package).write_bytes(weights(package).read_bytes()[:135])


@on_files
def weights_of_version_1(package: Path) -> None:
    patch(weights(package), 4, b"\x01")


@on_files
def weights_sentinel_wrong(package: Path) -> None:
    patch(weights(package), 64, b"\xef\xbe\xad\xdf")


@on_files
def weights_dtype_differs(package: Path) -> None:
    patch(weights(package), 68, b"\x02")


@on_files
def weights_dtype_unknown(package: Path) -> None:
    patch(weights(package), 68, b"\xff")


@on_files
def weights_size_beyond_the_file(package: Path) -> None:
    patch(weights(package), 72, (1 << 62).to_bytes(8, "little"))


@on_files
def weights_size_wraps_around(package: Path) -> None:
    patch(weights(package), 72, ((1 << 64) - 64).to_bytes(8, "little"))


@on_files
def weights_data_beyond_the_file(package: Path) -> None:
    patch(weights(package), 80, (1 << 40).to_bytes(8, "little"))


@on_files
def weights_data_is_its_own_record(package: Path) -> None:
    patch(weights(package), 80, (64).to_bytes(8, "little"))


@on_files
def weights_record_beyond_the_file(package: Path) -> None:
    content = model(package).read_bytes()
    model(package).write_bytes(content.replace(b"weight.bin\x10\x40", b"weight.bin\x10\x7f"))


@on_files
def weights_path_leads_out(package: Path) -> None:
    content = model(package).read_bytes()
    model(package).write_bytes(content.replace(b"/weights/weight.bin", b"/../../../../../bad"))


@on_files
def weights_path_is_absolute(package: Path) -> None:
    content = model(package).read_bytes()
    model(package).write_bytes(
        content.replace(b"@model_path/weights/weight.bin", b"/etc/passwd".ljust(30, b"/"))
    )


@on_program
def shape_larger_than_the_blob() -> tuple[Program, Description]:
    lie = TensorType("fp16", (2, 4))
    return program(constant(value=replace(WEIGHT, type=lie), kind=lie), add()), PORTS


@on_program
def shape_of_a_billion_billion_elements() -> tuple[Program, Description]:
    lie = TensorType("fp16", (1 << 30, 1 << 30))
    inline = Constant(lie, np.zeros(1, np.float16))
    return program(constant(value=inline, kind=lie), add()), PORTS


@on_program
def shape_unknown_in_a_constant() -> tuple[Program, Description]:
    lie = TensorType("fp16", (2, None))
    return program(constant(value=replace(WEIGHT, type=lie), kind=lie), add()), PORTS


@on_program
def constant_declared_otherwise() -> tuple[Program, Description]:
    return program(constant(kind=TensorType("fp16", (3, 2))), add()), PORTS


@on_program
def constant_without_a_value() -> tuple[Program, Description]:
    return program(replace(constant(), attributes={}), add()), PORTS


@on_program
def integer_too_large() -> tuple[Program, Description]:
    value = Constant(TensorType("int32", ()), np.array(1 << 40))
    return program(constant("n", value, TensorType("int32", ())), constant(), add()), PORTS


@on_program
def name_defined_twice() -> tuple[Program, Description]:
    return program(constant(), constant(), add()), PORTS


@on_program
def name_of_an_input_defined_again() -> tuple[Program, Description]:
    return program(constant("x"), constant(), add()), PORTS


@on_program
def name_undefined() -> tuple[Program, Description]:
    return program(constant(), add(y="nowhere")), PORTS


@on_program
def name_used_before_it_is_defined() -> tuple[Program, Description]:
    return program(add(), constant()), PORTS


@on_program
def operation_uses_itself() -> tuple[Program, Description]:
    return program(add(y="y")), PORTS


@on_program
def operation_unknown() -> tuple[Program, Description]:
    return program(constant(), add(kind="frobnicate")), PORTS


@on_program
def output_undefined() -> tuple[Program, Description]:
    return program(constant(), add(), outputs=("z",)), replace(PORTS, outputs=(Port("z", (2, 3), "float16"),))


@on_program
def output_not_described() -> tuple[Program, Description]:
    return program(constant(), add()), replace(PORTS, outputs=())


@on_program
def input_described_twice() -> tuple[Program, Description]:
    return program(constant(), add()), replace(PORTS, inputs=PORTS.inputs * 2)


@on_program
def input_shape_differs() -> tuple[Program, Description]:
    return program(constant(), add()), replace(PORTS, inputs=(Port("x", (2, 4), "float16"),))


@on_program
def input_dtype_differs() -> tuple[Program, Description]:
    return program(constant(), add()), replace(PORTS, inputs=(Port("x", (2, 3), "float32"),))


@on_program
def function_missing() -> tuple[Program, Description]:
    made = program(constant(), add())
    return Program({"other": replace(made.main, name="other")}), PORTS


@on_program
def blocks_nested_too_deep() -> tuple[Program, Description]:
    inner = Block((), (), ())
    for level in range(120):
        inner = Block((), (Operation("cond", f"c{level}", {}, (), blocks=(inner,)),), ())
    return program(constant(), add(), *inner.operations), PORTS


def make(folder: Path = FOLDER) -> None:
    """Write every case anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, edit in PROGRAM_EDITS.items():
        write_package(folder / f"{name}.mlpackage", *edit())
    for name, damage in FILE_EDITS.items():
        damage(write_package(folder / f"{name}.mlpackage", program(constant(), add()), PORTS).path)


if __name__ == "__main__":
    make()
