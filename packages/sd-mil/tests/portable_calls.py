"""One operation through the portable engine, and what the reference engine makes of the same arguments."""

import numpy as np
from mil_graphs import _MIL_NAMES, program, tensor, variable
from sd_mil import Operation, Reference
from sd_mil.engines.portable import compile_program
from sd_mil.engines.reference.ops import OPS


def portable(kind, data, outputs, /, **parameters):
    """Run one operation: ``data`` are inputs of the graph, ``parameters`` constants, ``outputs`` types.

    A tuple stands for a variadic parameter; ``None`` leaves a parameter out.
    """
    names = {key: _names(key, value) for key, value in data.items()}
    arrays = {
        name: array
        for key, value in data.items()
        for name, array in zip(names[key], _tuple(value), strict=True)
    }
    inputs = {key: tuple(Reference(name) for name in given) for key, given in names.items()}
    inputs |= {key: (tensor(value),) for key, value in parameters.items() if value is not None}
    results = [f"out{position}" for position in range(len(outputs))]
    declared = tuple(variable(name, kind_of) for name, kind_of in zip(results, outputs, strict=True))
    made = program(
        {name: (_MIL_NAMES[array.dtype], *array.shape) for name, array in arrays.items()},
        [Operation(kind, "under_test", inputs, declared)],
        results,
    )
    computed = compile_program(made).run(arrays)
    return [computed[name] for name in results]


def agrees(kind, data, /, tolerance=2e-5, **parameters):
    """Hold the portable engine to the reference engine's function: values, shapes and dtypes."""
    given = {key: value for key, value in parameters.items() if value is not None}
    expected = OPS[kind].function(**data, **given)
    expected = [np.asarray(one) for one in (expected if isinstance(expected, tuple) else (expected,))]
    outputs = [(_MIL_NAMES[_declared(one.dtype)], *one.shape) for one in expected]
    for got, wanted in zip(portable(kind, data, outputs, **parameters), expected, strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def _declared(dtype):
    """The MIL dtype of a result: MIL's integers are int32, its floats at most fp32."""
    return {"i": np.dtype(np.int32), "f": np.dtype(np.float32)}.get(dtype.kind, dtype)


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)


def _names(key, value):
    return [f"{key}{position}" for position in range(len(_tuple(value)))]
