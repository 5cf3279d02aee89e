"""Compressed weights as operations of the program, in the form of each target.

Since iOS 16 a table for the whole weight, int8 with a scale for the whole or for channels, or a sparse
weight: packed bytes and a ``shape``, as attributes. Since iOS 18 tensors of less than a byte, as parameters,
and the other schemes. The last operation defines the weight's own name: who takes it need not change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import Argument, Constant, Operation, Reference, TensorType, Variable

from .packing import pack
from .quantizing import Quantized
from .schemes import Palette
from .weights import Array, Weight

#: Makes a constant of an array as it is stored, given its MIL dtype and shape.
Store: TypeAlias = Callable[[npt.NDArray[Any], str, tuple[int, ...]], Constant]


@dataclass(frozen=True, slots=True)
class Sparse:
    """A pruned weight: what stays, ``mask`` of the weight's shape, and how; as it is if ``then`` is None."""

    mask: npt.NDArray[np.bool_]
    values: Array
    then: Palette | Quantized | None


Compressed: TypeAlias = Palette | Quantized | Sparse


def operations(
    weight: Weight, compressed: Compressed, target: int, store: Store, names: Collection[str] = ()
) -> tuple[Operation, ...]:
    """The operations that decode a weight, the one that defines its name last.

    ``target`` is the number of an iOS; ``names`` those that are taken.
    """
    form = _Blockwise(weight, store, names) if target >= 18 else _Plain(weight, store)
    if isinstance(compressed, Palette):
        return form.palette(compressed)
    if isinstance(compressed, Quantized):
        return form.linear(compressed)
    return form.sparse(compressed)


def palette_bits(palette: Palette) -> int:
    """The width of an index."""
    entries: int = palette.tables.shape[1]
    return entries.bit_length() - 1


@dataclass(frozen=True, slots=True)
class _Plain:
    """iOS 16 and 17."""

    weight: Weight
    store: Store

    def palette(self, palette: Palette) -> tuple[Operation, ...]:
        packed = pack(palette.indices, palette_bits(palette))
        table = palette.tables.reshape(-1).astype(_numpy(self.weight))
        return self._made(
            "constexpr_lut_to_dense",
            indices=self.store(packed, "uint8", packed.shape),
            lut=self.store(table, self.weight.dtype, table.shape),
            shape=_shape(self.weight),
        )

    def linear(self, quantized: Quantized) -> tuple[Operation, ...]:
        data, scale, offset = quantized.data, quantized.scale, quantized.offset
        zeros = np.zeros(scale.shape, data.dtype) if offset is None else offset
        shape = () if scale.size == 1 else (scale.size,)
        return self._made(
            "constexpr_affine_dequantize",
            quantized_data=self.store(data, quantized.dtype, data.shape),
            zero_point=self.store(zeros.reshape(shape), quantized.dtype, shape),
            scale=self.store(scale.reshape(shape), self.weight.dtype, shape),
            axis=_int32(quantized.axis),
        )

    def sparse(self, sparse: Sparse) -> tuple[Operation, ...]:
        values, mask = sparse.values[sparse.mask], pack(sparse.mask, 1)
        return self._made(
            "constexpr_sparse_to_dense",
            nonzero_data=self.store(values, self.weight.dtype, values.shape),
            mask=self.store(mask, "uint8", mask.shape),
            shape=_shape(self.weight),
        )

    def _made(self, kind: str, **attributes: Constant) -> tuple[Operation, ...]:
        named = {"name": _name(self.weight.name), **attributes}
        return (Operation(kind, self.weight.name, {}, (_defined(self.weight),), named),)


@dataclass(frozen=True, slots=True)
class _Blockwise:
    """iOS 18."""

    weight: Weight
    store: Store
    names: Collection[str]

    def palette(self, palette: Palette) -> tuple[Operation, ...]:
        parameters: dict[str, Argument] = {
            "indices": self._packed(palette.indices, f"uint{palette_bits(palette)}"),
            **self._table(palette),
        }
        if palette.scales is None:
            return (self._made("constexpr_lut_to_dense", parameters),)
        inner = self._inner("palettized", self.weight.dtype, self.weight.shape)
        scale = palette.scales.reshape(_along(palette.scale_axis, len(self.weight.shape)))
        scaled: dict[str, Argument] = {
            "data": Reference(inner.name),
            "scale": self.store(scale, self.weight.dtype, scale.shape),
        }
        return (
            self._made("constexpr_lut_to_dense", parameters, (inner,)),
            self._made("constexpr_blockwise_shift_scale", scaled),
        )

    def linear(self, quantized: Quantized) -> tuple[Operation, ...]:
        data = self._integers(quantized.data, quantized.dtype)
        parameters = {"data": data, **self._scale(quantized)}
        return (self._made("constexpr_blockwise_shift_scale", parameters),)

    def sparse(self, sparse: Sparse) -> tuple[Operation, ...]:
        mask = self._packed(sparse.mask, "uint1")
        if sparse.then is None:
            values = sparse.values[sparse.mask]
            stored = self.store(values, self.weight.dtype, values.shape)
            return (self._made("constexpr_sparse_to_dense", {"nonzero_data": stored, "mask": mask}),)
        outputs = (
            self._inner("mask", "uint1", self.weight.shape),
            self._inner("nonzero_data", self.weight.dtype, (int(sparse.mask.sum()),)),
        )
        kind, parameters = self._nonzero(sparse.then, sparse.mask, mask)
        dense = {"nonzero_data": Reference(outputs[1].name), "mask": Reference(outputs[0].name)}
        return (
            self._made(kind, parameters, outputs),
            self._made("constexpr_sparse_to_dense", dense),
        )

    def _nonzero(
        self, then: Palette | Quantized, kept: npt.NDArray[np.bool_], mask: Constant
    ) -> tuple[str, dict[str, Argument]]:
        if isinstance(then, Palette):
            indices = self._packed(then.indices[kept], f"uint{palette_bits(then)}")
            parameters: dict[str, Argument] = {
                "indices_mask": mask,
                "indices_nonzero_data": indices,
                **self._table(then),
            }
            return "constexpr_lut_to_sparse", parameters
        data = self._integers(then.data[kept], then.dtype)
        parameters = {"data_mask": mask, "nonzero_data": data, **self._scale(then)}
        return "constexpr_sparse_blockwise_shift_scale", parameters

    def _table(self, palette: Palette) -> dict[str, Argument]:
        """``lut`` [groups along each axis, entries, vector], and the axis of vectors."""
        groups, entries, *vector = palette.tables.shape
        counts = [1] * len(self.weight.shape)
        counts[palette.axis] = groups
        table = palette.tables.reshape(*counts, entries, *(vector or [1])).astype(_numpy(self.weight))
        parameters: dict[str, Argument] = {"lut": self.store(table, self.weight.dtype, table.shape)}
        if palette.vector_axis is not None:
            parameters["vector_axis"] = _int32(palette.vector_axis)
        return parameters

    def _scale(self, quantized: Quantized) -> dict[str, Argument]:
        scale = quantized.scale
        parameters: dict[str, Argument] = {"scale": self.store(scale, self.weight.dtype, scale.shape)}
        if quantized.offset is not None:
            parameters["offset"] = self._integers(quantized.offset, quantized.dtype)
        return parameters

    def _integers(self, data: npt.NDArray[Any], dtype: str) -> Constant:
        return self._packed(data, dtype) if dtype.endswith("4") else self.store(data, dtype, data.shape)

    def _packed(self, values: npt.NDArray[Any], dtype: str) -> Constant:
        bits = int(dtype.removeprefix("u").removeprefix("int"))
        if bits == 8:
            return self.store(values, dtype, values.shape)
        return self.store(pack(values, bits), dtype, values.shape)

    def _inner(self, suffix: str, dtype: str, shape: tuple[int, ...]) -> Variable:
        name = f"{self.weight.name}_{suffix}"
        while name in self.names:
            name += "_"
        return Variable(name, TensorType(dtype, shape))

    def _made(
        self, kind: str, parameters: Mapping[str, Argument], outputs: tuple[Variable, ...] | None = None
    ) -> Operation:
        defined = outputs or (_defined(self.weight),)
        name = self.weight.name if outputs is None else outputs[-1].name
        inputs = {key: (value,) for key, value in parameters.items()}
        return Operation(kind, name, inputs, defined, {"name": _name(name)})


def _defined(weight: Weight) -> Variable:
    return Variable(weight.name, weight.constant.type)


def _numpy(weight: Weight) -> npt.DTypeLike:
    return np.float16 if weight.dtype == "fp16" else np.float32


def _along(axis: int, rank: int) -> tuple[int, ...]:
    return tuple(-1 if number == axis else 1 for number in range(rank))


def _name(name: str) -> Constant:
    return Constant(TensorType("string", ()), name)


def _int32(value: int) -> Constant:
    return Constant(TensorType("int32", ()), np.array(value, np.int32))


def _shape(weight: Weight) -> Constant:
    return Constant(TensorType("uint32", (len(weight.shape),)), np.array(weight.shape, np.uint32))
