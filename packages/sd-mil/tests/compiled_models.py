"""Packages compiled, and held to what they were: for tests."""

import json
from dataclasses import replace

import numpy as np
from sd_mil import Reference, compile_model, read_package


def compiled(package, tmp_path, **options):
    return compile_model(package, tmp_path / "made.mlmodelc", **options).path


def metadata(path):
    (said,) = json.loads((path / "metadata.json").read_text())
    return said


def comparable(value):
    """Types and values of a constant: not where it lies in a file, nor the bits of a NaN in text."""
    content = value.value
    if isinstance(content, np.ndarray | np.generic):
        array = np.asarray(content)
        if not value.stored and array.dtype.kind == "f":
            array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
        return value.type, array.dtype.str, array.shape, array.tobytes()
    return value.type, content


def shown(block):
    """All of a block, its inputs in any order."""
    return (
        sorted((one.name, str(one.type)) for one in block.inputs),
        block.outputs,
        [
            (
                one.type,
                one.name,
                {
                    key: [a.name if isinstance(a, Reference) else comparable(a) for a in arguments]
                    for key, arguments in one.inputs.items()
                },
                one.outputs,
                {key: comparable(constant) for key, constant in one.attributes.items()},
                [shown(inner) for inner in one.blocks],
            )
            for one in block.operations
        ],
    )


def known(description):
    return replace(description, unknown={})


def check_same(package, tmp_path):
    before, after = read_package(package), read_package(compiled(package, tmp_path))
    assert list(before.program.functions) == list(after.program.functions)
    for name, function in before.program.functions.items():
        other = after.program.functions[name]
        assert function.opset == other.opset
        assert shown(function.body) == shown(other.body)
    assert before.specification_version == after.specification_version
    assert known(before.description) == known(after.description)
    assert {name: known(one) for name, one in before.descriptions.items()} == {
        name: known(one) for name, one in after.descriptions.items()
    }
    return tmp_path / "made.mlmodelc"
