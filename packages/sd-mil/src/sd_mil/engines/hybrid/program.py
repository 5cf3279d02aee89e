"""Programs that a backend does not run alone: compiled segments, and numpy between them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sd_mil.engines.hybrid.assembly import assemble
from sd_mil.engines.hybrid.backend import Backend
from sd_mil.engines.hybrid.parts import Chain
from sd_mil.engines.hybrid.states import states_as_values
from sd_mil.engines.reference.payload import computed
from sd_mil.engines.reference.values import Array, Cell
from sd_mil.errors import PredictionError
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.program import Program, StateType, TensorType, ValueType, Variable
from sd_mil.ir.uses import output_types

_State: TypeAlias = "MutableMapping[str, Array]"


@dataclass(frozen=True, slots=True)
class HybridProgram:
    """A program in parts, ready to run. Made by :func:`compile_in_parts`.

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


def compile_in_parts(program: Program, backend: Backend, *, name: str) -> HybridProgram:
    """Compile the default function of ``program``: segments by the backend, the rest in numpy.

    ``name``: of the engine, where it says what it computes with. What numpy computes is fp32 in any case.

    Raises:
        UnsupportedOpError: an operation that neither the backend nor the reference engine knows.
        PackageError: the program contradicts itself.
    """
    functional, finals = states_as_values(program)
    backend.refuse_unknown(functional)
    chain = assemble(functional.main.body, backend=backend)
    return HybridProgram(
        inputs=functional.main.inputs,
        outputs=output_types(program),
        finals=finals,
        chain=chain,
        arithmetic=_describe(chain, name),
    )


def _describe(chain: Chain, name: str) -> str:
    alone = f"{name}: numpy {np.__version__}, fp32 arithmetic; not the Neural Engine"
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
