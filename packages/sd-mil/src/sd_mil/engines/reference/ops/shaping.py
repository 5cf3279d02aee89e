"""Operations that move elements without computing on them."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, axis_of, check_counts, op
from sd_mil.ir.limits import check_computed, check_parts


@op("reshape")
def reshape(x: Array, shape: Array) -> Array:
    """-1 is inferred; 0 keeps the size of the same axis, counted from the last one, or is 1 before the first.

    Until iOS 17, 0 is for shapes of the same rank only, where counting from either end is the same.
    """
    sizes = [int(size) for size in shape]
    check_counts("sizes", *sizes, least=-1)
    kept = (*[1] * (len(sizes) - x.ndim), *x.shape[max(0, x.ndim - len(sizes)) :])
    if x.size or -1 in sizes:
        sizes = [same if size == 0 else size for size, same in zip(sizes, kept, strict=True)]
    return x.reshape(sizes)


@op("reshape_like", variadic=("ref_tensors", "begins", "ends", "end_masks"))
def reshape_like(
    x: Array,
    ref_tensors: tuple[Array, ...],
    begins: tuple[Array, ...],
    ends: tuple[Array, ...],
    end_masks: tuple[Array, ...],
) -> Array:
    """In the shape that slices of other tensors' shapes make together."""
    slices = zip(ref_tensors, begins, ends, end_masks, strict=True)
    sizes = [one.shape[int(begin) : None if mask else int(end)] for one, begin, end, mask in slices]
    return x.reshape([size for part in sizes for size in part])


@op("transpose")
def transpose(x: Array, perm: Array) -> Array:
    """Axes in the order of ``perm``."""
    return x.transpose([int(axis) for axis in perm])


@op("expand_dims")
def expand_dims(x: Array, axes: Array) -> Array:
    """Axes of size 1, at positions in the result."""
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


@op("squeeze")
def squeeze(x: Array, axes: Array | None = None) -> Array:
    """Axes of size 1 removed: those given, or all."""
    return x.squeeze(None if axes is None else tuple(int(axis) for axis in axes))


@op("flatten2d")
def flatten2d(x: Array, axis: Array | int = 1) -> Array:
    """Two axes: those before ``axis`` merged, and the rest."""
    split = int(axis) if int(axis) == x.ndim else axis_of(axis, x.ndim)
    return x.reshape(int(np.prod(x.shape[:split])), -1)


@op("shape")
def shape(x: Array) -> Array:
    """The sizes, as a vector."""
    return np.array(x.shape, dtype=np.int32)


@op("concat", variadic="values")
def concat(values: tuple[Array, ...], axis: Array, interleave: Array | bool = False) -> Array:
    """Joined along an existing axis, or taking turns along it; scalars count as vectors."""
    arrays = [np.atleast_1d(value) for value in values]
    check_computed(sum(one.size for one in arrays))
    if not interleave:
        return np.concatenate(arrays, axis=int(axis))
    position = axis_of(axis, arrays[0].ndim)
    stacked = np.stack(arrays, axis=position + 1)
    sizes = arrays[0].shape
    return stacked.reshape(*sizes[:position], sizes[position] * len(arrays), *sizes[position + 1 :])


@op("stack", variadic="values")
def stack(values: tuple[Array, ...], axis: Array) -> Array:
    """Joined along a new axis."""
    check_computed(sum(value.size for value in values))
    return np.stack(values, axis=int(axis))


@op("split")
def split(
    x: Array, axis: Array, num_splits: Array | None = None, split_sizes: Array | None = None
) -> tuple[Array, ...]:
    """Parts along the axis: of the sizes given, or as many equal ones."""
    if split_sizes is not None:
        check_counts("sizes", *split_sizes)
        if int(split_sizes.sum()) != x.shape[int(axis)]:
            raise ValueError(f"expected sizes that sum to {x.shape[int(axis)]}, got {split_sizes.tolist()}")
        return tuple(np.split(x, np.cumsum(split_sizes)[:-1].tolist(), axis=int(axis)))
    if num_splits is None:
        raise ValueError("expected num_splits or split_sizes, got neither")
    count = int(num_splits)
    check_parts(x.shape[int(axis)], count)
    return tuple(np.split(x, count, axis=int(axis)))


@op("tile")
def tile(x: Array, reps: Array) -> Array:
    """Repeated along every axis."""
    check_counts("repetitions", *reps)
    check_computed(x.size, *(int(count) for count in reps))
    return np.tile(x, [int(count) for count in reps])


@op("reverse")
def reverse(x: Array, axes: Array | None = None) -> Array:
    """Backwards along the axes, or along all."""
    return np.flip(x, None if axes is None else tuple(int(axis) for axis in axes))


@op("pad", choices={"mode": ("constant", "reflect", "replicate")})
def pad(x: Array, pad: Array, mode: str = "constant", constant_val: Array | float = 0.0) -> Array:
    """``pad`` has before and after for each of the last ``len(pad) / 2`` axes."""
    check_counts("paddings", *pad)
    pairs = pad.reshape(-1, 2).tolist()
    widths = [(0, 0)] * (x.ndim - len(pairs)) + [(before, after) for before, after in pairs]
    check_computed(*(size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)))
    if mode == "constant":
        return np.pad(x, widths, constant_values=constant_val)
    return np.pad(x, widths, mode="edge" if mode == "replicate" else "reflect")


@op("pixel_shuffle")
def pixel_shuffle(x: Array, upscale_factor: Array) -> Array:
    """[N, C f f, H, W] to [N, C, H f, W f]."""
    factor = int(upscale_factor)
    check_counts("upscale_factor", factor, least=1)
    n, c, h, w = x.shape
    blocks = x.reshape(n, c // factor**2, factor, factor, h, w)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // factor**2, h * factor, w * factor)


@op("pixel_unshuffle")
def pixel_unshuffle(x: Array, downscale_factor: Array) -> Array:
    """[N, C, H f, W f] to [N, C f f, H, W]."""
    factor = int(downscale_factor)
    check_counts("downscale_factor", factor, least=1)
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // factor, factor, w // factor, factor)
    return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(n, c * factor**2, h // factor, w // factor)


@op("depth_to_space")
def depth_to_space(x: Array, block_size: Array) -> Array:
    """[N, C b b, H, W] to [N, C, H b, W b], with the block as the outer part of the channels."""
    block = int(block_size)
    check_counts("block_size", block, least=1)
    n, c, h, w = x.shape
    blocks = x.reshape(n, block, block, c // block**2, h, w)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


@op("space_to_depth")
def space_to_depth(x: Array, block_size: Array) -> Array:
    """The inverse of ``depth_to_space``."""
    block = int(block_size)
    check_counts("block_size", block, least=1)
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block, block, w // block, block)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


@op("band_part")
def band_part(x: Array, lower: Array | int = -1, upper: Array | int = -1) -> Array:
    """Zero outside a band around the diagonal of the last two axes; negative keeps that whole side."""
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    below = (int(lower) < 0) | (rows - columns <= int(lower))
    above = (int(upper) < 0) | (columns - rows <= int(upper))
    return np.where(below & above, x, np.zeros((), x.dtype))
