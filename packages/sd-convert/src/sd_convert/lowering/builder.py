"""The program under construction: emits MIL operations through coremltools' builder and names them.

coremltools checks the types of every operation against Apple's definitions as it is emitted. Weights enter as
stand-ins without memory; :attr:`Builder.tensors` says which tensor of the checkpoint each one stands for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sd_convert.components.component import Weights
from sd_convert.errors import WeightsMismatchError
from sd_convert.lowering.casting import cast
from sd_convert.lowering.checkpoint_tensors import CheckpointTensor
from sd_convert.lowering.choice import Choose
from sd_convert.lowering.computed import evaluate

from .mil_builder import new_mil_builder
from .values import Tensor, Weight, stored
from .views import arrange

if TYPE_CHECKING:
    import torch

#: The most negative number of an additive mask. exp(-1e4) is 0 in every precision, and unlike -inf it
#: survives palettization and the sum of two masks; ml-stable-diffusion (torch2coreml.py) uses the same.
MASKED: Final = -1e4

_MIL_DTYPE: Final = {"float16": "fp16", "float32": "fp32", "int32": "int32", "bool": "bool"}


class Builder:
    """Emits operations, names them after the module that they come from, and remembers what it has made.

    ``scope`` (a module path) and ``dtype`` (of arithmetic and constants) are set for each node of the graph.
    """

    def __init__(
        self, weights: Weights, *, attention: Choose, dtype: str, has_images: bool, reserved: Sequence[str]
    ) -> None:
        """Start a program whose ports are called ``reserved``."""
        self.weights: Final = weights
        self.attention: Final[Choose] = attention
        self.has_images: Final = has_images
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.scope = ""
        self.tensors: dict[str, CheckpointTensor] = {}
        self._taken = dict.fromkeys(reserved, 1)
        self._made: dict[Any, Any] = {}
        self._mil: Final = new_mil_builder()

    def placeholder(self, shape: tuple[int, ...], dtype: str) -> Any:
        """What becomes an input of the function."""
        from coremltools.converters.mil.mil import types

        return self._mil.placeholder(
            shape=shape, dtype=types.numpy_type_to_builtin_type(np.dtype(dtype).type)
        )

    # Operations

    def emit(self, op: str, **inputs: Any) -> Any:
        """Append a MIL operation; returns its output, or its outputs."""
        return getattr(self._mil, op)(**inputs, name=self._name(f"{self.scope}_{op}"))

    def emit_once(self, op: str, x: Any, **parameters: Any) -> Any:
        """The operation on ``x``, or its output from before: every block of a UNet asks for the same ones."""
        key = (op, id(x), tuple(parameters.items()))
        if key not in self._made:
            self._made[key] = self.emit(op, x=x, **parameters)
        return self._made[key]

    def converted(self, tensor: Tensor, dtype: str) -> Tensor:
        """The tensor with numbers of ``dtype``: float16, float32, int32 or bool."""
        name = _MIL_DTYPE[dtype]
        if _dtype_of(tensor.var) == name:
            return tensor
        return Tensor(self.emit_once("cast", tensor.var, dtype=name), tensor.view)

    def in_precision(self, tensor: Tensor) -> Tensor:
        """The tensor in the dtype of arithmetic; integers and booleans as they are."""
        return self.converted(tensor, self.dtype.name) if self.is_float(tensor) else tensor

    def is_float(self, tensor: Tensor) -> bool:
        """Whether its numbers are floats."""
        return _dtype_of(tensor.var) in ("fp16", "fp32")

    def output(self, name: str, tensor: Tensor, dtype: str) -> Any:
        """The variable of a port: the tensor as ATen sees it, in the port's dtype, under the port's name."""
        var = self.plain(tensor)
        if _dtype_of(var) == _MIL_DTYPE[dtype]:
            return self._mil.identity(x=var, name=name)
        return self._mil.cast(x=var, dtype=_MIL_DTYPE[dtype], name=name)

    # Layouts

    def plain(self, tensor: Tensor) -> Any:
        """The tensor stored as ATen sees it."""
        return self.arranged(tensor, tuple(range(len(tensor.shape))), tensor.shape)

    def bc1s(self, tensor: Tensor) -> Any:
        """A tensor that ATen sees as (B, S, C), stored as (B, C, 1, S)."""
        batch, length, channels = tensor.shape
        return self.arranged(tensor, (0, 2, None, 1), (batch, channels, 1, length))

    def arranged(self, tensor: Tensor, order: tuple[int | None, ...], shape: tuple[int, ...]) -> Any:
        """A variable of ``shape`` with the tensor's dimensions in ``order``; None is an axis of size one."""
        key = (id(tensor.var), tensor.view, order, shape)
        if key not in self._made:
            self._made[key] = self._arrange(tensor, order, shape)
        return self._made[key]

    def reshaped(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The tensor that ATen sees as ``shape``, without an operation wherever that is possible."""
        view = tensor.view.reshape(shape)
        if view is not None:
            return Tensor(tensor.var, view)
        return stored(self.emit("reshape", x=self.plain(tensor), shape=shape))

    def _arrange(self, tensor: Tensor, order: tuple[int | None, ...], shape: tuple[int, ...]) -> Any:
        var = tensor.var
        steps = arrange(tuple(var.shape), tensor.view, order, shape)
        if steps.before is not None:
            var = self._reshape(var, steps.before)
        if steps.perm is not None:
            var = self.emit("transpose", x=var, perm=steps.perm)
        return var if steps.after is None else self._reshape(var, steps.after)

    def _reshape(self, var: Any, shape: tuple[int, ...]) -> Any:
        """A reshape; new axes at the end are an operation of their own, as Apple's converter has it."""
        rank = len(var.shape)
        if shape[:rank] == tuple(var.shape):
            return self.emit("expand_dims", x=var, axes=list(range(rank, len(shape))))
        return self.emit("reshape", x=var, shape=shape)

    # Constants

    def number(self, value: float) -> Any:
        """A float in the dtype of arithmetic."""
        return self.dtype.type(value)

    def constant(self, value: torch.Tensor | float) -> npt.NDArray[np.generic]:
        """A folded constant: floats in the dtype of arithmetic, integers as int32, or booleans.

        What is below every float16 (-inf, float32's lowest) is there to mask, and becomes ``MASKED``.
        """
        import torch

        array = torch.as_tensor(value).detach().cpu().numpy()
        if array.dtype.kind == "f":
            masked = np.where(array < np.finfo(np.float16).min, array.dtype.type(MASKED), array)
            return cast(masked, self.dtype, self.scope or "a constant")
        return array if array.dtype.kind == "b" else array.astype(np.int32)

    def additive_mask(self, mask: torch.Tensor) -> npt.NDArray[np.generic]:
        """A boolean (True: seen) or additive mask as an additive one without infinities."""
        import torch

        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, MASKED)
        return self.constant(mask.clamp(min=MASKED))

    def filled(self, value: float, length: int) -> Any:
        """A vector of equal numbers as a constant; the same one each time it is asked for."""
        key = ("filled", value, length, self.dtype)
        if key not in self._made:
            name = self._name(f"filled_{length}")
            self._made[key] = self._mil.const(val=np.full(length, value, self.dtype), name=name)
        return self._made[key]

    def weight(self, weight: Weight, shape: tuple[int, ...] | None = None) -> Any:
        """A tensor of the checkpoint as a constant of ``shape``; the same one each time it is asked for.

        Raises:
            WeightsMismatchError: the checkpoint has no such tensor, or one of another shape.
        """
        shape = weight.shape if shape is None else shape
        key = (weight, shape, self.dtype)
        if key not in self._made:
            self._made[key] = self._new_weight(weight, shape)
        return self._made[key]

    def read(self, weight: Weight, dtype: np.dtype[Any] | None = None) -> npt.NDArray[np.generic]:
        """The elements of a weight now, by default in the dtype of arithmetic.

        Raises: see :meth:`weight`.
        """
        self.check(weight)
        return cast(evaluate(weight.value, self.weights), dtype or self.dtype, weight.name)

    def _new_weight(self, weight: Weight, shape: tuple[int, ...]) -> Any:
        self.check(weight)
        name, kind = self._name(weight.name), _MIL_DTYPE[self.dtype.name]
        self.tensors[name] = CheckpointTensor(weight.value, self.weights, kind, shape)
        return self._mil.const(val=np.broadcast_to(np.zeros((), self.dtype), shape), name=name)

    def check(self, weight: Weight) -> None:
        """Hold a weight against the checkpoint; errors as :meth:`weight`."""
        if weight.expression is not None:
            return  # what it is computed from was checked when the graph was read
        if weight.name not in self.weights:
            raise WeightsMismatchError(
                f"{weight.name}: expected a tensor {list(weight.shape)} in the checkpoint, got none"
            )
        got = self.weights.shape(weight.name)
        if got != weight.shape:
            raise WeightsMismatchError(
                f"{weight.name}: expected {list(weight.shape)} from the config, "
                f"got {list(got)} in the checkpoint"
            )

    def _name(self, wish: str) -> str:
        """A name that MIL accepts and that nothing else has."""
        name = re.sub(r"\W", "_", wish, flags=re.ASCII).strip("_") or "value"
        name = f"module_{name}" if name[0].isdigit() else name
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else self._name(f"{name}_{count - 1}")


def _dtype_of(var: Any) -> str:
    """MIL's name of a variable's dtype."""
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(var.dtype))
