"""Operations that work element by element, and matrix products."""

from __future__ import annotations

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
    return stored(b.emit(op, x=_plain(b, x), y=_plain(b, y)))


def _is_scalar(x: Operand) -> TypeGuard[torch.Tensor | Number]:
    return isinstance(x, int | float) or (isinstance(x, torch.Tensor) and x.ndim == 0)


def _number_beside(b: Builder, x: torch.Tensor | Number, tensor: Tensor) -> Any:
    """A number in the dtype of the tensor that it is combined with."""
    return b.number(float(x)) if b.is_float(tensor) else np.int32(int(x))


def _plain(b: Builder, x: Operand) -> Any:
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


@lowers("aten.silu.default", "aten.silu_.default")
def silu(b: Builder, x: Tensor) -> Tensor:
    """``x * sigmoid(x)``."""
    return elementwise(b, "silu", x)


@lowers("aten.gelu.default")
def gelu(b: Builder, x: Tensor, *, approximate: str = "none") -> Tensor:
    """``x`` times the normal distribution's integral, exact or by its tanh approximation."""
    return elementwise(b, "gelu", x, mode={"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[approximate])


@lowers("aten.softmax.int")
def softmax(b: Builder, x: Tensor, dim: int, _dtype: torch.dtype | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` over ``dim``."""
    return stored(b.emit("softmax", x=b.plain(x), axis=dim))


@lowers("aten.matmul.default", "aten.bmm.default")
def matmul(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    """Matrix product over the last two dimensions."""
    return stored(b.emit("matmul", x=b.plain(x), y=b.plain(y)))


@lowers("aten.dropout.default", "aten.alias.default", "aten.contiguous.default", "aten.clone.default")
def same(_b: Builder, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """What changes nothing in inference."""
    return x
