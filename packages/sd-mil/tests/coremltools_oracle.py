"""One operation as coremltools defines it: the types of its outputs and, where it can tell, their values."""

import itertools

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder, types
from mil_graphs import _MIL_NAMES, program, tensor, variable
from sd_mil import Operation, Reference
from sd_mil.engines.portable import compile_program
from sd_mil.engines.reference import compile_program as compile_reference

OPSETS = {15: ct.target.iOS15, 16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}


def define(kind, opset, given):
    """The outputs of an operation of constants: variables with a type, and a value if it can be inferred."""
    found = []

    @Builder.program(input_specs=[], opset_version=OPSETS[opset])
    def made():
        arguments = {name: _plain(value) for name, value in given.items() if value is not None}
        made_by = getattr(Builder, kind)(**arguments)
        found.extend(made_by if isinstance(made_by, list | tuple) else [made_by])
        return found[0]

    return found


def _plain(value):
    return bool(value) if isinstance(value, np.bool_) else value


def declared(one):
    dtype = types.builtin_to_string(one.dtype)
    shape = tuple(
        None if ct.converters.mil.mil.types.symbolic.is_symbolic(size) else int(size) for size in one.shape
    )
    return dtype, *shape


def operation(kind, data, parameters, outputs):
    """The program of one operation: ``data`` are its inputs, ``parameters`` constants."""
    names = {key: [f"{key}{i}" for i in range(len(_tuple(value)))] for key, value in data.items()}
    arrays = dict(
        itertools.chain.from_iterable(
            zip(names[key], _tuple(value), strict=True) for key, value in data.items()
        )
    )
    inputs = {key: tuple(Reference(name) for name in given) for key, given in names.items()}
    inputs |= {
        key: tuple(map(_constant, _tuple(value))) for key, value in parameters.items() if value is not None
    }
    results = [f"out{i}" for i in range(len(outputs))]
    made = program(
        {name: (_MIL_NAMES[array.dtype], *array.shape) for name, array in arrays.items()},
        [Operation(kind, "under_test", inputs, tuple(map(variable, results, outputs)))],
        results,
    )
    return made, arrays


def run_both(kind, data, parameters, outputs):
    """What the reference and the portable engine compute, and what the portable one left to numpy."""
    made, arrays = operation(kind, data, parameters, outputs)
    compiled = compile_program(made)
    slow = compile_reference(made).run(arrays)
    fast = compiled.run(arrays)
    left = compiled.arithmetic.partition("in numpy: ")[2]
    return list(slow.values()), list(fast.values()), left


def _constant(value):
    return tensor(value if isinstance(value, str) else np.asarray(value))


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)
