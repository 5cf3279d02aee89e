"""``metadata.json``: what Xcode shows of a compiled model, and what apps recognise it by.

Source of the features' forms: ``FeatureType::toDictionary`` in coremltools' mlmodel/src/DataType.cpp, with
the changes since then that compiled models show (``×`` for ``x``, ``Color``, ``State``).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sd_mil.format.compiling.names import histogram_name
from sd_mil.ir.dtypes import SUB_BYTE_BITS
from sd_mil.ir.ports import Description, EnumeratedShapes, Port, Shape, ShapeRange
from sd_mil.ir.program import (
    Argument,
    Constant,
    Operation,
    Package,
    Pipeline,
    Program,
    StateType,
    TensorType,
)
from sd_mil.ir.uses import constant_of

_DTYPES: Final = {
    "fp16": "Float16", "fp32": "Float32", "fp64": "Double", "bf16": "BFloat16",
    "int4": "Int4", "int8": "Int8", "int16": "Int16", "int32": "Int32", "int64": "Int64",
    "uint1": "UInt1", "uint2": "UInt2", "uint3": "UInt3", "uint4": "UInt4", "uint6": "UInt6",
    "uint8": "UInt8", "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64",
}  # fmt: skip
_ARRAYS: Final = {
    "float16": "Float16", "float32": "Float32", "float64": "Double", "int8": "Int8", "int32": "Int32",
}  # fmt: skip
_COLORS: Final = {
    "RGB": "RGB", "BGR": "BGR", "GRAYSCALE": "Grayscale", "GRAYSCALE_FLOAT16": "Grayscale16Half",
}  # fmt: skip
#: By specification version: macOS, iOS (as Mac Catalyst and tvOS), watchOS, visionOS.
_SYSTEMS: Final = {
    6: ("12.0", "15.0", "8.0", "1.0"),
    7: ("13.0", "16.0", "9.0", "1.0"),
    8: ("14.0", "17.0", "10.0", "1.0"),
    9: ("15.0", "18.0", "11.0", "2.0"),
    10: ("16.0", "19.0", "12.0", "3.0"),  # what the others call 26
}
_IOS: Final = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 19}
_PROGRAM: Final = "MLModelType_mlProgram"


def metadata_json(package: Package, class_name: str) -> str:
    """The file's text; ``class_name`` is the name of the compiled model, without its suffix."""
    said = _of_model(package, [package], {"name": _PROGRAM})
    said["generatedClassName"] = _identifier(class_name)
    if package.descriptions:
        said["functions"] = [
            _of_function(name, one, package.program) for name, one in package.descriptions.items()
        ]
    return _text(said)


def pipeline_metadata_json(pipeline: Pipeline, models: Sequence[Package], class_name: str) -> str:
    """The same of a pipeline: operations and precisions are those of all its models."""
    structure = [{"name": _PROGRAM}] * len(models)
    said = _of_model(pipeline, models, {"name": "MLModelType_pipeline", "structure": structure})
    said["generatedClassName"] = _identifier(class_name)
    return _text(said)


def _text(said: dict[str, Any]) -> str:
    return json.dumps([said], indent=2, ensure_ascii=False)


def _of_model(
    model: Package | Pipeline, packages: Sequence[Package], model_type: dict[str, Any]
) -> dict[str, Any]:
    described = model.description
    operations = [one for package in packages for one in _operations(package.program)]
    said: dict[str, Any] = {
        "metadataOutputVersion": "3.0",
        **_precision("storagePrecision", _storage(operations)),
        "outputSchema": list(map(_feature, described.outputs)),
        "modelParameters": [],
        "specificationVersion": model.specification_version,
        "mlProgramOperationTypeHistogram": _histogram_of_all(packages),
        **_precision("computePrecision", _computed(operations)),
        "isUpdatable": "0",
        "stateSchema": list(map(_feature, described.states)),
        "availability": _availability(model.specification_version),
        "modelType": model_type,
        "userDefinedMetadata": dict(described.user_defined),
        "inputSchema": list(map(_feature, described.inputs)),
        "method": "predict",
    }
    words = {
        "shortDescription": described.short_description,
        "version": described.version,
        "author": described.author,
        "license": described.license,
    }
    return said | {key: text for key, text in words.items() if text}


def _operations(program: Program) -> list[Operation]:
    """Those of all functions, nested blocks included."""
    return [one for name in program.functions for one in program.operations(name)]


def _histogram_of_all(packages: Iterable[Package]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for package in packages:
        counts.update(_histogram(_operations(package.program), _IOS[package.program.main.opset]))
    return dict(counts)


def _of_function(name: str, description: Description, program: Program) -> dict[str, Any]:
    operations = list(program.operations(name))
    return {
        "name": name,
        "inputSchema": list(map(_feature, description.inputs)),
        "outputSchema": list(map(_feature, description.outputs)),
        "stateSchema": list(map(_feature, description.states)),
        **_precision("storagePrecision", _storage(operations)),
        **_precision("computePrecision", _computed(operations)),
        "mlProgramOperationTypeHistogram": _histogram(operations, _IOS[program.functions[name].opset]),
    }


def _histogram(operations: Iterable[Operation], ios: int) -> dict[str, int]:
    """How many operations there are of each kind; constants are none."""
    kinds = Counter(one.type for one in operations if one.type != "const")
    return {histogram_name(kind, ios): count for kind, count in kinds.items()}


def _computed(operations: Iterable[Operation]) -> set[str]:
    """The numbers that operations return, constants included."""
    types = (variable.type for one in operations for variable in one.outputs)
    dtypes = (
        kind.tensor.dtype if isinstance(kind, StateType) else getattr(kind, "dtype", "") for kind in types
    )
    return {_DTYPES[dtype] for dtype in dtypes if dtype in _DTYPES}


def _storage(operations: Iterable[Operation]) -> set[str]:
    """The numbers in the weight file, and how those are stored that are compressed."""
    return {words for one in operations for words in _stored(one)}


def _stored(operation: Operation) -> Iterable[str]:
    value = constant_of(operation)
    if value is not None:
        return [_DTYPES[value.type.dtype]] if value.stored and value.type.dtype in _DTYPES else []
    match operation.type:
        case "constexpr_lut_to_dense" | "constexpr_lut_to_sparse":
            return [f"Palettized ({_palette_bits(operation)} bits)", *_sparse(operation)]
        case "constexpr_sparse_to_dense":
            return ["Sparse"]
        case "constexpr_affine_dequantize":
            return [_dtype_of(operation, "quantized_data")]
        case "constexpr_blockwise_shift_scale":
            return [_dtype_of(operation, "data")]
        case "constexpr_sparse_blockwise_shift_scale":
            return [_dtype_of(operation, "nonzero_data"), "Sparse"]
    return []


def _sparse(operation: Operation) -> list[str]:
    return ["Sparse"] if operation.type.endswith("sparse") else []


def _palette_bits(operation: Operation) -> int:
    """Of a table by itself (iOS 16), or of the indices (iOS 18)."""
    table = _constant(operation, "lut")
    sizes = table.type.shape if table is not None and isinstance(table.type, TensorType) else ()
    indices = _constant(operation, "indices") or _constant(operation, "indices_nonzero_data")
    if indices is not None and indices.type.dtype in SUB_BYTE_BITS:
        return SUB_BYTE_BITS[indices.type.dtype]
    entries = sizes[0] if len(sizes) == 1 else sizes[-2] if len(sizes) > 1 else 256
    return max(1, ((entries or 256) - 1).bit_length())


def _dtype_of(operation: Operation, name: str) -> str:
    found = _constant(operation, name)
    return "Int8" if found is None else _DTYPES.get(found.type.dtype, "Int8")


def _constant(operation: Operation, name: str) -> Constant | None:
    """An argument that is written in place, as parameter or attribute."""
    given: tuple[Argument, ...] = operation.inputs.get(name, ())
    found = operation.attributes.get(name) or (given[0] if given else None)
    return found if isinstance(found, Constant) else None


def _precision(key: str, found: set[str]) -> dict[str, str]:
    """``Float16``, or ``Mixed (Float16, Int32)``."""
    if not found:
        return {}
    names = sorted(found)
    return {key: names[0] if len(names) == 1 else f"Mixed ({', '.join(names)})"}


def _availability(version: int) -> dict[str, str]:
    macos, ios, watchos, visionos = _SYSTEMS[max(min(version, 10), 6)]
    return {
        "macOS": macos,
        "tvOS": ios,
        "visionOS": visionos,
        "watchOS": watchos,
        "iOS": ios,
        "macCatalyst": ios,
    }


def _identifier(name: str) -> str:
    """The name of the class that Xcode would generate."""
    letters = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{letters}" if letters[:1].isdigit() else letters


def _feature(port: Port) -> dict[str, str]:
    optional = "?" if port.optional else ""
    return {
        "isOptional": "1" if port.optional else "0",
        "shortDescription": port.description,
        "name": port.name,
        **{key: value + (optional if key == "formattedType" else "") for key, value in _kind(port).items()},
    }


def _kind(port: Port) -> dict[str, str]:
    match port.kind:
        case "array":
            dtype = _ARRAYS[port.dtype]
            shape = _known(port.shape)
            return {
                "type": "MultiArray",
                "dataType": dtype,
                "shape": _listed(shape),
                "formattedType": f"MultiArray ({' '.join([dtype, *_said(shape)])})",
                **_flexible("hasShapeFlexibility", "shape", "enumeratedShapes", port, lambda sizes: sizes),
            }
        case "image":
            height, width = port.shape[-2:]
            color = _COLORS[port.color or "RGB"]
            grey = color.startswith("Gray")
            return {
                "type": "Image",
                "width": str(width),
                "height": str(height),
                "colorspace": color,
                "isColor": "0" if grey else "1",
                "formattedType": f"Image ({color if grey else 'Color'} {width} × {height})",
                **_flexible(
                    "hasSizeFlexibility", "size", "enumeratedSizes", port, lambda sizes: sizes[:-3:-1]
                ),
            }
        case "state":
            dtype, shape = _ARRAYS[port.dtype], _known(port.shape)
            return {
                "type": "State",
                "dataType": dtype,
                "shape": _listed(shape),
                "formattedType": f"State ({' '.join([dtype, *_said(shape)])})",
            }
        case "dictionary":
            key = "Int64" if port.dtype == "int64" else "String"
            return {"type": "Dictionary", "keyType": key, "formattedType": f"Dictionary ({key} → Double)"}
    name = port.kind.capitalize()
    return {"type": name, "formattedType": name}


def _flexible(has: str, what: str, listed: str, port: Port, pick: Any) -> dict[str, str]:
    """What is said of a flexible port besides its default; of images only the sizes, width first."""
    if isinstance(port.flexibility, EnumeratedShapes):
        shapes = [pick(shape) for shape in port.flexibility.shapes]
        said = " | ".join(" × ".join(map(str, shape)) for shape in shapes)
        return {has: "1", listed: f"[{', '.join(map(_listed, shapes))}]", f"{what}Flexibility": said}
    if isinstance(port.flexibility, ShapeRange):
        bounds = [(low, -1 if high is None else high) for low, high in pick(port.flexibility.bounds)]
        said = " × ".join(_range(low, high) for low, high in bounds)
        return {has: "1", f"{what}Range": f"[{', '.join(map(_listed, bounds))}]", f"{what}Flexibility": said}
    return {has: "0"}


def _range(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low}..." if high < 0 else f"{low}...{high}"


def _known(shape: Shape) -> tuple[int, ...]:
    """Nothing where a size depends on the input."""
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else ()


def _said(shape: tuple[int, ...]) -> list[str]:
    return [" × ".join(map(str, shape))] if shape else []


def _listed(sizes: Iterable[int]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
