"""Small models for ``sdc run``, written with sd-mil."""

from __future__ import annotations

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
    read_package,
    write_package,
)


def _type(dtype: str, shape: tuple[int, ...]) -> TensorType:
    return TensorType(dtype.replace("float", "fp"), shape)


def _program(
    inputs: tuple[Port, ...], operations: tuple[Operation, ...], outputs: tuple[str, ...]
) -> Program:
    variables = tuple(Variable(port.name, _type(port.dtype, port.shape)) for port in inputs)
    return Program({"main": Function("main", "CoreML7", Block(variables, operations, outputs))})


def _call(kind: str, name: str, out: TensorType, **inputs: object) -> Operation:
    arguments = {
        key: (Reference(value) if isinstance(value, str) else value,) for key, value in inputs.items()
    }
    return Operation(kind, name, arguments, (Variable(name, out),))


def doubling(path: Path, **ports: tuple[str, tuple[int, ...]]) -> Path:
    """``twice_NAME = NAME + NAME`` for each port."""
    inputs = tuple(Port(name, shape, dtype) for name, (dtype, shape) in ports.items())
    outputs = tuple(Port(f"twice_{port.name}", port.shape, port.dtype) for port in inputs)
    operations = tuple(
        _call("add", out.name, _type(out.dtype, out.shape), x=port.name, y=port.name)
        for port, out in zip(inputs, outputs, strict=True)
    )
    made = _program(inputs, operations, tuple(port.name for port in outputs))
    return write_package(path, made, Description(inputs, outputs)).path


def renamed(model: Path, path: Path, old: str, new: str) -> Path:
    """The model with another name for one of its outputs."""
    package = read_package(model)
    main = package.program.main
    operations = tuple(
        replace(one, name=new, outputs=(replace(one.outputs[0], name=new),))
        if one.outputs[0].name == old
        else one
        for one in main.body.operations
    )
    outputs = tuple(new if name == old else name for name in main.outputs)
    ports = tuple(
        replace(port, name=new) if port.name == old else port for port in package.description.outputs
    )
    made = _program(package.description.inputs, operations, outputs)
    return write_package(path, made, replace(package.description, outputs=ports)).path


def without_output(model: Path, path: Path, name: str) -> Path:
    """The model with one output less."""
    package = read_package(model)
    main = package.program.main
    outputs = tuple(one for one in main.outputs if one != name)
    ports = tuple(port for port in package.description.outputs if port.name != name)
    made = _program(package.description.inputs, main.body.operations, outputs)
    return write_package(path, made, replace(package.description, outputs=ports)).path


def scalar(path: Path) -> Path:
    """``y = x + x``, where both are single numbers."""
    kind = _type("float32", (1,))
    made = Program(
        {
            "main": Function(
                "main",
                "CoreML7",
                Block((Variable("x", kind),), (_call("add", "y", kind, x="x", y="x"),), ("y",)),
            )
        }
    )
    x, y = (Port(name, (), "float64", kind="double") for name in "xy")
    return write_package(path, made, Description((x,), (y,))).path


def picture(path: Path, width: int, height: int) -> Path:
    """An RGB picture to its tensor, ``same``."""
    shape = (1, 3, height, width)
    inputs = (Port("image", shape, "float32", kind="image", color="RGB"),)
    operations = (_call("identity", "same", _type("float32", shape), x="image"),)
    made = _program(inputs, operations, ("same",))
    return write_package(path, made, Description(inputs, (Port("same", shape, "float32"),))).path


def detector(folder: Path) -> tuple[Path, np.ndarray]:
    """A pipeline of a network and a suppression that leaves its thresholds to the pipeline; the scores."""
    from coremltools.proto import Model_pb2

    scores = np.linspace(0.05, 0.9, 6, dtype=np.float32)[:, None]
    boxes = np.stack([10 * np.arange(6), np.zeros(6), np.ones(6), np.ones(6)], axis=1).astype(np.float32)
    named = {"raw_confidence": scores, "raw_coordinates": boxes}
    inputs = (Port("x", (1, 1), "float32"),)
    zero = _call("mul", "zero", _type("float32", (1, 1)), x="x", y=_constant(np.float32(0)))
    added = tuple(
        _call("add", name, _type("float32", array.shape), x="zero", y=_constant(array))
        for name, array in named.items()
    )
    outputs = tuple(Port(name, array.shape, "float32") for name, array in named.items())
    network = write_package(
        folder / "network.mlpackage",
        _program(inputs, (zero, *added), tuple(named)),
        Description(inputs, outputs),
    ).path
    inner = Model_pb2.Model.FromString((network / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    whole = Model_pb2.Model(specificationVersion=8)
    whole.pipeline.models.extend([inner, _suppression()])
    whole.pipeline.names.extend(["network", "suppression"])
    whole.description.input.extend(inner.description.input)
    for name in ("iouThreshold", "confidenceThreshold"):
        feature = whole.description.input.add(name=name)
        feature.type.doubleType.SetInParent()
        feature.type.isOptional = True
    whole.description.output.extend(whole.pipeline.models[1].description.output)
    path = folder / "detector.mlmodel"
    path.write_bytes(whole.SerializeToString())
    return path, scores[:, 0]


def _constant(array: np.ndarray) -> Constant:
    array = np.asarray(array)
    return Constant(TensorType("fp32", array.shape), array)


def _suppression():  # type: ignore[no-untyped-def]
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model(specificationVersion=8)
    method = model.nonMaximumSuppression
    method.pickTop.perClass = True
    method.iouThreshold, method.confidenceThreshold = 0.45, 0.25
    method.confidenceInputFeatureName, method.coordinatesInputFeatureName = (
        "raw_confidence",
        "raw_coordinates",
    )
    method.iouThresholdInputFeatureName = "iouThreshold"
    method.confidenceThresholdInputFeatureName = "confidenceThreshold"
    method.confidenceOutputFeatureName, method.coordinatesOutputFeatureName = "confidence", "coordinates"
    for side, names in (
        ("input", ("raw_confidence", "raw_coordinates")),
        ("output", ("confidence", "coordinates")),
    ):
        for name, columns in zip(names, (1, 4), strict=True):
            array = getattr(model.description, side).add(name=name).type.multiArrayType
            array.dataType = 65568
            for low, high in ((0, -1), (columns, columns)):
                array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    return model
