"""Matrix products, all through numpy's matmul."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.engines.reference.ops.activation import softmax
from sd_mil.engines.reference.registry import Array, op
from sd_mil.ir.limits import check_broadcast, check_computed


@op("linear")
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """``x @ weight.T + bias``; the weight is [out, in]."""
    result = _product(x, weight.T)
    if bias is None:
        return result
    check_broadcast(result.shape, bias.shape)
    return np.asarray(result + bias)


@op("matmul")
def matmul(x: Array, y: Array, transpose_x: Array | bool = False, transpose_y: Array | bool = False) -> Array:
    """The batched product, after transposing the last two axes where asked."""
    left = x.swapaxes(-1, -2) if transpose_x else x
    right = y.swapaxes(-1, -2) if transpose_y else y
    return _product(left, right)


def _product(left: Array, right: Array) -> Array:
    """``left @ right``, unless it would be too large."""
    if left.ndim > 1 and right.ndim > 1:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        check_computed(*batch, left.shape[-2], right.shape[-1])
    return np.asarray(left @ right)


@op("einsum", variadic="values")
def einsum(values: tuple[Array, ...], equation: str) -> Array:
    """A contraction of two operands, as one batched matrix product.

    The letters fall into four groups: in both operands and the output (batch), in both operands only
    (contracted), in the left or the right one and the output. numpy's own einsum takes a scalar loop for
    ``bkhc,bchq->bkhq``. An axis of size 1 is repeated to its letter's size.
    """
    operands, _, output = equation.replace(" ", "").partition("->")
    left, right = operands.split(",")
    x, y = values
    shared = [letter for letter in left if letter in right]
    batch = [letter for letter in shared if letter in output]
    contracted = [letter for letter in shared if letter not in output]
    rows = [letter for letter in left if letter not in shared]
    columns = [letter for letter in right if letter not in shared]
    if sorted(batch + rows + columns) != sorted(output):
        raise ValueError(f"expected every letter to be contracted or kept, got {equation!r}")
    sizes = dict(zip(left, x.shape, strict=True))
    for letter, size in zip(right, y.shape, strict=True):
        sizes[letter] = max(size, sizes.get(letter, 1))
    for letters in (left, right, output):
        check_computed(*(sizes[letter] for letter in letters))
    x, y = (
        np.broadcast_to(one, [sizes[letter] for letter in letters])
        for one, letters in ((x, left), (y, right))
    )
    product = _blocks(x, left, (batch, rows, contracted), sizes) @ _blocks(
        y, right, (batch, contracted, columns), sizes
    )
    order = batch + rows + columns
    kept = product.reshape([sizes[letter] for letter in order])
    return kept.transpose([order.index(letter) for letter in output])


def _blocks(array: Array, letters: str, groups: tuple[list[str], ...], sizes: dict[str, int]) -> Array:
    """Transpose into the groups' order and merge each group into one axis."""
    order = [letters.index(letter) for group in groups for letter in group]
    return array.transpose(order).reshape([math.prod(sizes[letter] for letter in group) for group in groups])


@op("scaled_dot_product_attention")
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    """softmax(q k^T / sqrt(E) + mask) v; a boolean mask says where to attend.

    Source: arXiv:1706.03762, equation 1.
    """
    scores = _product(query / np.float32(math.sqrt(query.shape[-1])), key.swapaxes(-1, -2))
    check_broadcast(scores.shape, () if attn_mask is None else attn_mask.shape)
    if attn_mask is not None and attn_mask.dtype == bool:
        scores = np.where(attn_mask, scores, -np.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return _product(softmax(scores), value)
