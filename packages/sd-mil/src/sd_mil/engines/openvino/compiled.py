"""Compile a program for this machine's processor, and run it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, MutableMapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_mil.engines import reference
from sd_mil.engines.openvino.dtypes import computed_dtype
from sd_mil.engines.protocol import Precision
from sd_mil.errors import (
    EngineError,
    PackageError,
    PredictionError,
    SdMilError,
    UnsupportedOpError,
    load_error,
)
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.program import Program, Variable
from sd_mil.ir.uses import output_types

if TYPE_CHECKING:
    import openvino

    from sd_mil.engines.openvino.sizes import SizeCheck

Array: TypeAlias = npt.NDArray[np.generic]

_DEVICE = "CPU"
_HINTS: dict[str, str] = {"fp32": "f32", "bf16": "bf16"}


class CompiledProgram:
    """A program that is ready to run. Made by :func:`compile_program`.

    Several threads may run it; one runs at a time. OpenVINO uses all cores for one inference anyway.
    """

    def __init__(
        self,
        program: Program,
        compiled: openvino.CompiledModel,
        *,
        arithmetic: str,
        indexed: tuple[str, ...] = (),
        sizes: SizeCheck | None = None,
    ) -> None:
        """``arithmetic`` says in one line what the numbers were computed with.

        ``indexed``: the operations of which a last output says whether an index was out of range. ``sizes``:
        of a model whose sizes follow from its inputs'.
        """
        self._program, self._indexed, self._sizes = program, indexed, sizes
        self._inputs = program.main.inputs
        self._outputs = program.main.outputs
        self._types = output_types(program)
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # the request is busy until its results, which it owns, are copied
        self.arithmetic = arithmetic

    def run(
        self, inputs: Mapping[str, Array], state: MutableMapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, Array]:
        """Execute the default function once.

        Shapes and dtypes are those that the program declares; arrays of other numeric dtypes are converted.

        Raises:
            PredictionError: a missing or unknown input, or a wrong shape.
            PackageError: an operation fails for these inputs, or memory does not suffice.
        """
        _check_names({**inputs, **(state or {})}, self._inputs)
        if self._sizes is not None and any(0 in np.shape(array) for array in inputs.values()):
            return self._in_numpy(inputs)
        try:
            return self._results(inputs)
        except SdMilError:  # some of which are ValueErrors, too
            raise
        except (RuntimeError, MemoryError, ValueError) as error:  # ValueError: sizes that come out negative
            shapes = {name: list(array.shape) for name, array in inputs.items()}
            raise PackageError(
                f"expected a program that OpenVINO runs for inputs of shapes {shapes}, got: {_reason(error)}"
            ) from error

    def _results(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        from sd_mil.engines.openvino.sizes import SizesUnknownError

        given = [_as_computed(inputs[variable.name], variable) for variable in self._inputs]
        with self._lock, np.errstate(over="ignore"):  # what fp16 cannot hold is infinite, as on any hardware
            try:
                if self._sizes is not None:
                    self._sizes.check(given)
            except SizesUnknownError:
                return self._in_numpy(inputs)
            # the request's own memory, which the next run overwrites; what is returned is the only copy
            results = self._request.infer(given, share_inputs=True, share_outputs=True)
            if self._indexed:
                self._refuse_outside(np.asarray(results[len(self._outputs)]))
            return {
                name: np.asarray(results[position]).astype(NUMPY_DTYPES[self._types[name].dtype])
                for position, name in enumerate(self._outputs)
            }

    def _in_numpy(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What comes of tensors without elements, of which not all of OpenVINO's operations know, or of sizes
        that nothing bounds before they are there.
        """
        given = {one.name: _as_computed(inputs[one.name], one) for one in self._inputs}
        return reference.compile_program(self._program).run(given)

    def _refuse_outside(self, violations: Array) -> None:
        for where, count in zip(self._indexed, violations.tolist(), strict=True):
            if count:
                raise PackageError(f"expected {where} to be computable, got: {count} indices out of range")


def compile_program(program: Program, *, precision: Precision = "fp32") -> CompiledProgram:
    """Compile the default function of ``program`` with OpenVINO.

    ``precision`` is the arithmetic of floats: ``fp32``, or ``bf16`` on processors that have it. It is always
    set explicitly: left alone, OpenVINO picks bf16 by itself. Layers whose weights and activations are 8-bit
    integers are computed in integers where :mod:`sd_mil.engines.openvino.exactness` finds those exact, and in
    floats elsewhere: what is rounded is the same.

    Raises:
        MissingEngineError: OpenVINO is not installed.
        EngineError: an unknown precision, or bf16 on a processor that has none.
        UnsupportedOpError: an operation has no translation; found before anything is built.
        PackageError: the program contradicts itself.
    """
    if precision not in _HINTS:
        raise EngineError(f"expected one of {', '.join(_HINTS)} as precision, got {precision!r}")
    from sd_mil.engines.openvino.library import import_openvino

    openvino = import_openvino()
    from sd_mil.cache import default_cache
    from sd_mil.engines.openvino.exactness import sums_are_exact
    from sd_mil.engines.openvino.sizes import SizeCheck
    from sd_mil.engines.openvino.translation import refuse_unsupported, translate_program
    from sd_mil.residency import mapped_files, pages_dropped, refuse_truncated
    from sd_mil.rewriting import compute_in_integers, decode_constants, rewrite

    refuse_unsupported(program)
    refuse_truncated(mapped_files(program))
    core = _checked_core(openvino, precision)
    integers = compute_in_integers(program)
    layers = None if integers is program else "int8" if sums_are_exact() else precision
    rewritten = rewrite(decode_constants(integers, default_cache()))
    with pages_dropped(mapped_files(rewritten)):
        translation = translate_program(rewritten)
        compiled = _compile(core, translation.model, _configuration(precision, layers))
    _refuse_unchecked(translation.model, compiled)
    arithmetic = _describe(openvino.__version__, precision, layers)
    # where sizes of results are known, those of inputs still have to fit: OpenVINO does not look when it runs
    open_sizes = bool(translation.sized) or any(
        one.partial_shape.is_dynamic for one in translation.model.inputs
    )
    sizes = SizeCheck(translation.model, translation.sized, translation.sizing) if open_sizes else None
    return CompiledProgram(program, compiled, arithmetic=arithmetic, indexed=translation.indexed, sizes=sizes)


def _compile(
    core: openvino.Core, model: openvino.Model, configuration: Mapping[str, str]
) -> openvino.CompiledModel:
    try:
        return core.compile_model(model, _DEVICE, dict(configuration))
    except (RuntimeError, MemoryError) as error:
        raise PackageError(f"expected a program that OpenVINO compiles, got: {_reason(error)}") from error


def _refuse_unchecked(model: openvino.Model, compiled: openvino.CompiledModel) -> None:
    """Leave shapes that are not known before running to numpy where OpenVINO does not check them.

    With one thread, OpenVINO 2026.4.1 loses the errors of shape inference while it runs, and computes beyond
    its tensors: an addition of four numbers to three is a segmentation fault.

    Raises: UnsupportedOpError.
    """
    if int(compiled.get_property("INFERENCE_NUM_THREADS")) > 1:
        return
    for node in model.get_ordered_ops():
        if any(output.get_partial_shape().is_dynamic for output in node.outputs()):
            raise UnsupportedOpError(
                "the portable engine does not run shapes that are not known before running in one thread,"
                f" got {node.get_friendly_name()!r}"
            )


def _reason(error: Exception) -> str:
    """The last line of what OpenVINO says; the others are places in its source."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


@cache
def _core(kind: type[openvino.Core]) -> openvino.Core:
    """One for the process: it takes as long to make as a small program to compile, and serves all threads."""
    return kind()


def _checked_core(openvino: ModuleType, precision: str) -> openvino.Core:
    try:
        core = _core(openvino.Core)
        _check_arithmetic(core, precision)
    except RuntimeError as error:  # its plug-ins are libraries that it loads now
        raise load_error("OpenVINO", error) from error
    return core


def _check_arithmetic(core: openvino.Core, precision: str) -> None:
    capabilities = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capabilities:
        raise EngineError(
            f"precision bf16 needs a processor with bf16 instructions; this one has"
            f" {', '.join(capabilities)}. Use precision fp32"
        )


def _configuration(precision: str, layers: str | None) -> dict[str, str]:
    """Everything that decides what is computed, set: OpenVINO's own choice depends on the processor.

    Dynamic quantization would round the inputs of layers with integer weights to int8. Low-precision
    transformations are what turns ``layers``, the quantised ones, from rounded floats into integers.
    """
    configuration = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    return configuration if layers in (None, "int8") else {**configuration, "LP_TRANSFORMS_MODE": "NO"}


def _describe(version: str, precision: str, layers: str | None) -> str:
    """``layers`` is what quantised ones are computed in, if there are any."""
    release = version.split("-")[0]
    kind = f"{precision} arithmetic"
    if layers is not None:
        why = "" if layers == "int8" else " (this processor's sums of int8 are not exact)"
        kind += f", {layers} in quantised layers{why}"
    return f"portable: OpenVINO {release} on {_DEVICE}, {kind}; not the Neural Engine"


def _check_names(inputs: Mapping[str, Array], expected: tuple[Variable, ...]) -> None:
    names = {variable.name for variable in expected}
    if set(inputs) != names:
        raise PredictionError(f"expected the inputs {sorted(names)}, got {sorted(inputs)}")


def _as_computed(array: Array, variable: Variable) -> Array:
    """``array`` in the type in which the engine computes, after checking its shape."""
    expected = variable.type.shape
    fits = len(array.shape) == len(expected) and all(
        size in (None, got) for size, got in zip(expected, array.shape, strict=True)
    )
    if not fits:
        raise PredictionError(
            f"expected {variable.type} for input {variable.name!r}, got shape {array.shape}"
        )
    computed = computed_dtype(variable.type.dtype, where=f"input {variable.name!r}")
    return np.ascontiguousarray(array, dtype=computed).reshape(array.shape)
