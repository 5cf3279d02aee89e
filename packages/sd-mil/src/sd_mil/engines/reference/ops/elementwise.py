"""Operations on each element, with broadcasting.

Source of parameters and defaults, here and in the files beside: coremltools, converters/mil/mil/ops/defs.
"""

from __future__ import annotations

import math

import numpy as np

from sd_mil.engines.reference.registry import Array, alias, op
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.limits import check_broadcast

_UFUNCS = {
    "abs": np.absolute,
    "acos": np.arccos,
    "add": np.add,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "equal": np.equal,
    "exp": np.exp,
    "exp2": np.exp2,
    "floor": np.floor,
    "floor_div": np.floor_divide,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "mul": np.multiply,
    "not_equal": np.not_equal,
    "pow": np.power,
    "real_div": np.true_divide,
    "round": np.rint,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
}

for _name, _ufunc in _UFUNCS.items():
    alias(_name, _ufunc)


@op("cast", choices={"dtype": NUMPY_DTYPES})
def cast(x: Array, dtype: str) -> Array:
    """Floats stay fp32; to integer truncates; to bool is ``!= 0``."""
    return x.astype(np.float32 if dtype == "fp16" else NUMPY_DTYPES[dtype])


@op("clip")
def clip(x: Array, alpha: Array, beta: Array) -> Array:
    """Limit to [alpha, beta]."""
    check_broadcast(x.shape, alpha.shape, beta.shape)
    return np.asarray(np.minimum(np.maximum(x, alpha), beta))


@op("erf")
def erf(x: Array) -> Array:
    """The error function, in double precision, one element at a time: numpy has none."""
    flat = np.fromiter(map(math.erf, x.ravel()), dtype=np.float64, count=x.size)
    return flat.astype(x.dtype).reshape(x.shape)


@op("identity")
def identity(x: Array) -> Array:
    """The value itself."""
    return x


@op("inverse")
def inverse(x: Array, epsilon: Array | float = 1e-4) -> Array:
    """1 / (x + epsilon)."""
    return np.asarray(1 / (x + np.float32(epsilon)))


@op("log")
def log(x: Array, epsilon: Array | float = 1e-45) -> Array:
    """The natural logarithm of x + epsilon."""
    return np.asarray(np.log(x + np.float32(epsilon)))


@op("rsqrt")
def rsqrt(x: Array, epsilon: Array | float = 1e-12) -> Array:
    """1 / sqrt(x + epsilon)."""
    return np.asarray(1 / np.sqrt(x + np.float32(epsilon)))


@op("select")
def select(cond: Array, a: Array, b: Array) -> Array:
    """``a`` where the condition holds, ``b`` elsewhere."""
    check_broadcast(cond.shape, a.shape, b.shape)
    return np.where(cond.astype(bool), a, b)


@op("threshold")
def threshold(x: Array, alpha: Array) -> Array:
    """max(x, alpha)."""
    check_broadcast(x.shape, alpha.shape)
    return np.asarray(np.maximum(x, alpha))
