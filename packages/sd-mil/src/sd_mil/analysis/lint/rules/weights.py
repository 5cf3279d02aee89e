"""How weights are stored, and how much memory a model takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sd_mil.analysis.lint.memory import activation_bytes, decoded_bytes
from sd_mil.analysis.lint.rule import Hit, Source, rule
from sd_mil.analysis.lint.scope import Scope
from sd_mil.ir.program import Constant, Operation
from sd_mil.ir.uses import constants_of, operand

_TABLE: Final = "constexpr_lut_to_dense"
_APPLE_README: Final = "https://github.com/apple/ml-stable-diffusion/blob/main/README.md"
_LARGEST_FILE: Final = 10**9
#: From this iOS on compressed weights are decompressed as they are needed.
_DECODES_LATE: Final = 17


@rule(
    "ane-table-ios18",
    "error",
    says="From macOS 26 on the Neural Engine crashes when it loads 4-bit tables in the form of iOS 18, and "
    "tables of any width with a scale for each channel ('mps.dequantize' … failed assertion).",
    change="store them in the form of iOS 16 (palettize for iOS17 or earlier, without per-channel scales)",
    source=Source(
        "apple/coremltools#2688: enable_per_channel_scale=True crashing MPSGraph on Apple Neural Engine",
        "https://github.com/apple/coremltools/pull/2688",
        "2026-05-03",
    ),
    since=26,
    repair=True,
)
def ane_table_ios18(scope: Scope) -> Iterator[Hit]:
    """Tables of the newer form with four bits, or with scales."""
    scaled = {
        operand(one, "data") for one in scope.operations if one.type == "constexpr_blockwise_shift_scale"
    }
    constants = constants_of(scope.function.body.operations)
    for operation in scope.operations:
        if operation.type != _TABLE or "shape" in operation.attributes or "shape" in operation.inputs:
            continue
        if operation.outputs[0].name in scaled:
            yield Hit("a table with scales, in the form of iOS 18", operation)
        elif _bits(operation, constants) == 4:
            yield Hit("a 4-bit table in the form of iOS 18", operation)


@rule(
    "ane-4-bit-coremltools-9",
    "warning",
    says="4-bit tables in packages made with coremltools 9.0 are reported to compute wrong numbers, and "
    "with states to crash after 100 to 200 predictions on the Neural Engine.",
    change="compare the outputs on the device with those of the uncompressed package, or use 6 or 8 bits",
    source=Source(
        "apple/coremltools#2716: palettize_weights(nbits=4) … crashes; comment: numerically wrong",
        "https://github.com/apple/coremltools/issues/2716",
        "2026-09-23",
    ),
    since=26,
)
def ane_4_bit_coremltools_9(scope: Scope) -> Iterator[Hit]:
    """Tables of 16 entries, where the file says that coremltools 9 made it."""
    if not _made_by(scope).startswith("9."):
        return
    constants = constants_of(scope.function.body.operations)
    for operation in scope.operations:
        if operation.type == _TABLE and _bits(operation, constants) == 4:
            yield Hit("a 4-bit table" + " beside states" * bool(scope.description.states), operation)


def _made_by(scope: Scope) -> str:
    """The version of coremltools that the file names, in its build information or its metadata."""
    build = scope.package.program.attributes.get("buildInfo")
    known = build.value if build is not None and isinstance(build.value, Mapping) else {}
    said = scope.package.description.user_defined.get("com.github.apple.coremltools.version", "")
    return known.get("coremltools-version", said)


def _bits(operation: Operation, constants: Mapping[str, Constant]) -> int:
    """Of an index, from the length of the table."""
    given = operation.inputs.get("lut", ())
    argument = given[0] if given else operation.attributes.get("lut")
    table = argument if isinstance(argument, Constant) else constants.get(operand(operation, "lut"))
    if table is None:
        return 0
    shape = table.type.shape
    entries = shape[-2] if "shape" not in operation.attributes and len(shape) > 1 else shape[-1]
    return (entries or 1).bit_length() - 1


@rule(
    "weight-file-size",
    "error",
    says="The Neural Engine of iPhones and iPads needs a network whose weights take less than 1 GB.",
    change="split the network into chunks, or palettize it to 6 bits or fewer",
    source=Source("apple/ml-stable-diffusion, README: --chunk-unet", _APPLE_README, "2025-07-03"),
    devices=("iphone", "ipad"),
)
def weight_file_size(scope: Scope) -> Iterator[Hit]:
    """Weight files of a gigabyte and more."""
    size = scope.package.weight_bytes
    if size > _LARGEST_FILE and _is_default(scope):
        yield Hit(f"weights of {size / 1e9:.2f} GB")


@rule(
    "memory",
    "warning",
    says="An app that uses more memory than the system leaves it is ended.",
    change="split the network into chunks that are loaded one after another, compress it, or ask for smaller "
    "pictures or one sample at a time; on iOS the Increased Memory Limit entitlement helps",
    source=Source(
        "apple/ml-stable-diffusion, README, Q6; Apple Developer Forums 826325 (iPadOS 26.4)",
        "https://developer.apple.com/forums/thread/826325",
        "read 2026-11",
    ),
)
def memory(scope: Scope) -> Iterator[Hit]:
    """Weights and the activations that live at once, against what the smallest device of the class leaves."""
    stored = scope.package.weight_bytes
    weights = stored if scope.os >= _DECODES_LATE else max(stored, decoded_bytes(scope.function.body))
    needed = weights + activation_bytes(scope.function.body)
    if needed > scope.device.memory:
        yield Hit(
            f"about {needed / 1e9:.1f} GB ({weights / 1e9:.1f} GB of weights), where an app may use "
            f"{scope.device.memory / 1e9:.0f} GB: {scope.device.why}"
        )


def _is_default(scope: Scope) -> bool:
    return scope.function.name == scope.package.program.default_function
