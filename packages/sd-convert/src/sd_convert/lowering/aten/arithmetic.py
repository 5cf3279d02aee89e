"""Operations that work element by element, and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch

from sd_convert.errors import LoweringError
from sd_convert.lowering.builder import Builder
from sd_convert.lowering.registry import lowers
from sd_convert.lowering.values import Tensor, Weight, from_bc1s, stored

Number: TypeAlias = "float | int"
Operand: TypeAlias = "Tensor | Weight | torch.Tensor | Number"


def elementwise(b: Builder, op: str, x: Tensor, **parameters: Any) -> Tensor:
    """One input, one output of the same shape: the view stays as it is."""
    return Tensor(b.emit_once(op, x=x.var, **parameters), x.view)


def binary(b: Builder, op: str, x: Operand, y: Operand) -> Tensor:
    """Two inputs that broadcast: in BC1S if one is and the shapes are equal, else as ATen sees them."""
    if isinstance(x, Tensor) and _is_scalar(y):
        return Tensor(b.emit(op, x=x.var, y=_number_beside(b, y, x)), x.view)
    if isinstance(y, Tensor) and _is_scalar(x):
        return Tensor(b.emit(op, x=_number_beside(b, x, y), y=y.var), y.view)
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and (x.is_bc1s or y.is_bc1s):
        return from_bc1s(b.emit(op, x=b.bc1s(x), y=b.bc1s(y)))
    return stored(b.emit(op, x=plain(b, x), y=plain(b, y)))


def _is_scalar(x: Operand) -> TypeGuard[torch.Tensor | Number]:
    return isinstance(x, int | float) or (isinstance(x, torch.Tensor) and x.ndim == 0)


def _number_beside(b: Builder, x: torch.Tensor | Number, tensor: Tensor) -> Any:
    """A number in the dtype of the tensor that it is combined with."""
    return b.number(float(x)) if b.is_float(tensor) else np.int32(int(x))


def plain(b: Builder, x: Operand) -> Any:
    """A variable or a constant of what ATen sees."""
    if isinstance(x, Tensor):
        return b.plain(x)
    return b.weight(x) if isinstance(x, Weight) else b.constant(x)


@lowers("aten.add.Tensor")
def add(b: Builder, x: Operand, y: Operand, *, alpha: Number = 1) -> Tensor:
    """``x + alpha * y``; only ``alpha == 1`` occurs."""
    if alpha != 1:
        raise LoweringError(f"{b.scope}: aten.add.Tensor: expected alpha 1, got {alpha}")
    if isinstance(x, Tensor) and _is(y, 0):
        return x
    return binary(b, "add", x, y)


@lowers("aten.sub.Tensor")
def sub(b: Builder, x: Operand, y: Operand, *, alpha: Number = 1) -> Tensor:
    """``x - alpha * y``; only ``alpha == 1`` occurs."""
    if alpha != 1:
        raise LoweringError(f"{b.scope}: aten.sub.Tensor: expected alpha 1, got {alpha}")
    return binary(b, "sub", x, y)


@lowers("aten.rsub.Scalar")
def rsub(b: Builder, x: Tensor, number: Number, alpha: Number = 1) -> Tensor:
    """``number - alpha * x``; only ``alpha == 1`` occurs."""
    if alpha != 1:
        raise LoweringError(f"{b.scope}: aten.rsub.Scalar: expected alpha 1, got {alpha}")
    return binary(b, "sub", number, x)


@lowers("aten.mul.Tensor")
def mul(b: Builder, x: Operand, y: Operand) -> Tensor:
    """``x * y``."""
    if isinstance(x, Tensor) and _is(y, 1):
        return x
    return binary(b, "mul", x, y)


@lowers("aten.div.Tensor")
def div(b: Builder, x: Operand, y: Operand) -> Tensor:
    """``x / y``."""
    if isinstance(x, Tensor) and _is(y, 1):
        return x
    return binary(b, "real_div", x, y)


def _is(x: Operand, number: Number) -> bool:
    return isinstance(x, int | float) and x == number


@lowers("aten.sin.default")
def sin(b: Builder, x: Tensor) -> Tensor:
    """Sine, of radians."""
    return elementwise(b, "sin", x)


@lowers("aten.cos.default")
def cos(b: Builder, x: Tensor) -> Tensor:
    """Cosine, of radians."""
    return elementwise(b, "cos", x)


@lowers("aten.sigmoid.default")
def sigmoid(b: Builder, x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return elementwise(b, "sigmoid", x)


@lowers("aten.tanh.default")
def tanh(b: Builder, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return elementwise(b, "tanh", x)


@lowers("aten.relu.default", "aten.relu_.default")
def relu(b: Builder, x: Tensor) -> Tensor:
    """``max(x, 0)``."""
    return elementwise(b, "relu", x)


@lowers("aten.mish.default", "aten.mish_.default")
def mish(b: Builder, x: Tensor) -> Tensor:
    """``x * tanh(log(1 + exp(x)))``."""
    return Tensor(b.emit("mul", x=x.var, y=b.emit("tanh", x=b.emit("softplus", x=x.var))), x.view)


@lowers("aten.silu.default", "aten.silu_.default")
def silu(b: Builder, x: Tensor) -> Tensor:
    """``x * sigmoid(x)``."""
    return elementwise(b, "silu", x)


@lowers("aten.gelu.default")
def gelu(b: Builder, x: Tensor, *, approximate: str = "none") -> Tensor:
    """``x`` times the normal distribution's integral, exact or by its tanh approximation."""
    return elementwise(b, "gelu", x, mode={"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[approximate])


@lowers("aten.clamp_min.default")
def clamp_min(b: Builder, x: Tensor, number: Number) -> Tensor:
    """``max(x, number)``."""
    return binary(b, "maximum", x, number)


@lowers("aten.gt.Scalar")
def gt(b: Builder, x: Tensor, number: Number) -> Tensor:
    """Where ``x`` is above ``number``."""
    return binary(b, "greater", x, number)


@lowers("aten.sum.dim_IntList")
def sum_(b: Builder, x: Tensor, axes: Sequence[int], keepdim: bool = False) -> Tensor:
    """The sum over ``axes``."""
    return stored(b.emit("reduce_sum", x=b.plain(x), axes=list(axes), keep_dims=keepdim))


@lowers("aten.mean.dim")
def mean(b: Builder, x: Tensor, axes: Sequence[int], keepdim: bool = False) -> Tensor:
    """The mean over ``axes``."""
    return stored(b.emit("reduce_mean", x=b.plain(x), axes=list(axes), keep_dims=keepdim))


@lowers("aten.linalg_vector_norm.default")
def vector_norm(
    b: Builder, x: Tensor, order: Number = 2, axes: Sequence[int] | None = None, keepdim: bool = False
) -> Tensor:
    """The root of the sum of squares over ``axes``; no other norm occurs."""
    if order != 2 or axes is None:
        raise LoweringError(
            f"{b.scope}: aten.linalg_vector_norm.default: expected norm 2 over some axes, got {order}, {axes}"
        )
    return stored(b.emit("reduce_l2_norm", x=b.plain(x), axes=list(axes), keep_dims=keepdim))


@lowers("aten.softmax.int")
def softmax(b: Builder, x: Tensor, dim: int, _dtype: torch.dtype | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` over ``dim``."""
    return stored(b.emit("softmax", x=b.plain(x), axis=dim))


@lowers("aten.matmul.default", "aten.bmm.default")
def matmul(b: Builder, x: Operand, y: Operand) -> Tensor:
    """Matrix product over the last two dimensions."""
    return stored(b.emit("matmul", x=plain(b, x), y=plain(b, y)))


@lowers("aten.dropout.default", "aten.alias.default", "aten.contiguous.default", "aten.clone.default")
def same(_b: Builder, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """What changes nothing in inference."""
    return x
