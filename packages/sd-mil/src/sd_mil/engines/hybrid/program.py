"""Programs that OpenVINO does not run alone: compiled segments, and numpy between them.

A program that it runs alone is what :mod:`sd_mil.engines.openvino.compiled` makes of it, with nothing added.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sd_mil.engines.hybrid.parts import Chain
from sd_mil.engines.openvino import compiled
from sd_mil.engines.openvino.compiled import Array, CompiledProgram, output_types
from sd_mil.engines.openvino.states import states_as_values
from sd_mil.engines.protocol import Precision
from sd_mil.engines.reference.payload import computed
from sd_mil.engines.reference.values import Cell
from sd_mil.errors import PredictionError, UnsupportedModelError
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.program import Program, StateType, TensorType, ValueType, Variable

_State: TypeAlias = "MutableMapping[str, Array]"


@dataclass(frozen=True, slots=True)
class HybridProgram:
    """A program in parts, ready to run. Made by :func:`compile_program`.

    ``finals`` has, for each state that became an input, the value that is its new one. Other states are given
    to the parts as cells.
    """

    inputs: tuple[Variable, ...]
    outputs: Mapping[str, ValueType]
    finals: Mapping[str, str]
    chain: Chain
    arithmetic: str

    def run(self, inputs: Mapping[str, Array], state: _State | None = None) -> dict[str, Array]:
        """Execute the default function once; the entries of ``state`` are replaced when that succeeded.

        Raises:
            PredictionError: a missing or unknown input or state, or a wrong shape.
            PackageError: an operation in numpy fails for these inputs.
        """
        given = {**inputs, **(state or {})}
        values = {one.name: _brought(given, one) for one in self.inputs}
        if unknown := given.keys() - values.keys():
            raise PredictionError(f"expected the inputs {sorted(values)}, got {sorted(unknown)}")
        results = dict(zip(self.chain.outputs, self.chain.run(values), strict=True))
        if state is not None:
            for name, array in state.items():
                state[name] = _cast(self._left(values[name], results, name), array.dtype)
        return {name: _declared(results[name], kind) for name, kind in self.outputs.items()}

    def _left(self, before: Array | Cell, results: Mapping[str, Any], name: str) -> Array:
        """What a state holds after the run."""
        if isinstance(before, Cell):
            return before.value
        return np.asarray(results[self.finals[name]]) if name in self.finals else before


def compile_program(program: Program, *, precision: Precision = "fp32") -> CompiledProgram | HybridProgram:
    """Compile the default function of ``program``: with OpenVINO, or in parts where that cannot run it all.

    ``precision`` is the arithmetic of floats: ``fp32``, or ``bf16`` on processors that have it. What numpy
    computes is fp32 in any case.

    Raises:
        MissingEngineError: OpenVINO is not installed.
        EngineError: an unknown precision, or bf16 on a processor that has none.
        UnsupportedOpError: an operation that neither engine knows.
        PackageError: the program contradicts itself.
    """
    functional, finals = states_as_values(program)
    if functional is program:
        try:
            return compiled.compile_program(program, precision=precision)
        except UnsupportedModelError:
            pass  # the parts may do
    from sd_mil.engines.hybrid.assembly import assemble
    from sd_mil.engines.openvino.translation import refuse_unknown

    refuse_unknown(functional)
    chain = assemble(functional.main.body, precision=precision)
    return HybridProgram(
        inputs=functional.main.inputs,
        outputs=output_types(program),
        finals=finals,
        chain=chain,
        arithmetic=_describe(chain),
    )


def _describe(chain: Chain) -> str:
    alone = f"portable: numpy {np.__version__}, fp32 arithmetic; not the Neural Engine"
    native = " | ".join(chain.arithmetic) or alone
    return f"{native}; in numpy: {', '.join(sorted(chain.in_numpy))}" if chain.in_numpy else native


def _brought(given: Mapping[str, Array], variable: Variable) -> Array | Cell:
    """The value of an input in the type it is computed in, after checking its shape."""
    kind = variable.type
    if variable.name not in given:
        raise PredictionError(f"expected a value for input {variable.name!r}: {kind}, got {sorted(given)}")
    array = np.asarray(given[variable.name])
    fits = array.ndim == len(kind.shape) and all(
        size in (None, got) for size, got in zip(kind.shape, array.shape, strict=True)
    )
    if not fits:
        raise PredictionError(f"expected {kind} for input {variable.name!r}, got shape {array.shape}")
    widened = computed(array, kind.dtype)
    return Cell(widened) if isinstance(kind, StateType) else widened


def _declared(value: Any, kind: ValueType) -> Any:
    return _cast(value, NUMPY_DTYPES[kind.dtype]) if isinstance(kind, TensorType) else value


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):  # what fp16 cannot hold is infinite, as on any hardware
        return np.asarray(array).astype(dtype)
