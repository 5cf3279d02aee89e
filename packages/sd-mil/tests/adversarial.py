"""Programs of one operation with hostile parameters, and what the two engines make of them.

Everything is a function of a seed. Most parameters are what a program may have; some are far outside. Either
both engines compute the same values, or both give a typed error. What else is allowed is in :func:`_allowed`.
"""

import random
from dataclasses import dataclass, field

import mil_graphs as graphs
import numpy as np
from sd_mil import Operation, SdMilError, UnrankedType, Variable
from sd_mil.engines.reference import compile_program as compile_reference
from sd_mil.ir.program import Reference, TensorType

#: Of an element: where computing on it takes too long to be a test, the engines are asked for the bound only.
HOSTILE = (
    *(0, -1, -2, -3, -5, 5, 7, 8, 9, 17, 127, 255, 1000, 65536),
    *(2**20, 2**24, -(2**20), 2**29, 2**30, 2**31 - 1, -(2**31), -(2**31) + 1, -(2**30)),
)
TRUTHS = (True, False)


@dataclass
class Draw:
    """Random choices, and the parameters drawn so far: data by name, and which of it is given at run time."""

    random: random.Random
    arguments: dict = field(default_factory=dict)
    data: frozenset = frozenset()
    results: tuple = ("fp32",)

    def rare(self, chance=0.12):
        return self.random.random() < chance

    def size(self):
        return self.random.choice((1, 2, 3, 4, 4, 5, 8)) if not self.rare(0.02) else 0

    def shape(self, rank=None):
        rank = self.random.randint(0 if self.rare() else 1, 5) if rank is None else rank
        return tuple(self.size() for _ in range(rank))

    def image(self, spatial=2):
        return self.shape(2 + spatial) if not self.rare(0.03) else self.shape()

    def integer(self, low, high):
        """Mostly from ``low`` to ``high``."""
        return self.random.choice(HOSTILE) if self.rare() else self.random.randint(low, max(low, high))

    def integers(self, low, high, count):
        count += self.random.choice((-1, 1)) if self.rare(0.03) else 0
        return np.array([self.integer(low, high) for _ in range(max(0, count))], np.int32)

    def axis(self, rank):
        return np.int32(self.integer(-max(rank, 1), max(rank, 1) - 1))

    def axes(self, rank):
        least = 0 if self.rare(0.05) else min(1, rank)
        chosen = self.random.sample(range(rank), self.random.randint(least, rank))
        chosen = [one - rank if self.rare(0.3) else one for one in chosen]
        return np.array([self.random.choice(HOSTILE) if self.rare(0.05) else one for one in chosen], np.int32)

    def floats(self, shape):
        generator = np.random.default_rng(self.random.getrandbits(32))
        return (generator.integers(-8, 9, shape) / 4).astype(np.float32)

    def indices(self, size, shape):
        """Of a dimension: sometimes one that is not in it."""
        generator = np.random.default_rng(self.random.getrandbits(32))
        found = generator.integers(-size, max(size, 1 - size), shape, dtype=np.int32)
        if found.size and self.rare(0.2):
            found.flat[self.random.randrange(found.size)] = self.random.choice(HOSTILE)
        return found

    def number(self):
        return np.float32(self.random.choice((0.5, 1, 1.5, 2, 3, 0, -1, 1e9, 1e30, np.nan, np.inf, 0.001)))

    def flag(self):
        return np.bool_(self.random.choice(TRUTHS))

    def give(self, **values):
        """Parameters that every such operation has."""
        self.arguments |= values

    def maybe(self, **values):
        """Parameters that it may have."""
        self.arguments |= {name: value for name, value in values.items() if self.rare(0.6)}


def _unary(draw):
    kinds = ("relu", "abs", "identity", "square", "sigmoid", "softsign", "sign", "ceil", "floor", "round")
    kinds += ("silu", "tanh", "erf", "exp", "cos", "shape", "non_zero")
    kind = draw.random.choice(kinds)
    draw.give(x=draw.floats(draw.shape()))
    draw.results = ("int32",) if kind in ("shape", "non_zero") else ("fp32",)
    return kind


def _binary(draw):
    shape = draw.shape()
    other = tuple(1 if draw.rare(0.3) else size for size in shape)[draw.random.randint(0, len(shape)) :]
    other = draw.shape() if draw.rare() else other
    kind = draw.random.choice(
        ("add", "mul", "sub", "maximum", "minimum", "floor_div", "mod", "less", "real_div")
    )
    values = draw.floats(shape), draw.floats(other)
    if draw.rare(0.4) and kind != "real_div":
        values = draw.indices(100, shape), draw.indices(100, other)
        draw.results = ("int32",)
    if draw.rare(0.5) and kind in ("floor_div", "mod", "real_div"):
        values = values[0], np.where(values[1] == 0, 1, values[1]).astype(values[1].dtype)
    draw.results = ("bool",) if kind == "less" else draw.results
    draw.give(x=values[0], y=values[1])
    return kind


def _reduction(draw):
    kinds = ["max", "min", "sum", "mean", "prod", "l1_norm", "l2_norm", "sum_square", "log_sum_exp"]
    shape = draw.shape()
    draw.give(x=draw.floats(shape))
    draw.maybe(axes=draw.axes(len(shape)), keep_dims=draw.flag())
    return f"reduce_{draw.random.choice(kinds)}"


def _along_axis(draw):
    kind = draw.random.choice(("softmax", "cumsum", "argsort", "topk", "reduce_argmax", "reduce_argmin"))
    shape = draw.shape()
    draw.give(x=draw.floats(shape))
    draw.maybe(axis=draw.axis(len(shape)))
    if kind == "cumsum":
        draw.maybe(exclusive=draw.flag(), reverse=draw.flag())
    if kind in ("argsort", "topk"):
        draw.maybe(ascending=draw.flag())
    if kind == "topk":
        draw.give(k=np.int32(draw.integer(1, max(shape, default=1))))
    draw.results = (
        ("fp32", "int32") if kind == "topk" else ("fp32",) if kind in ("softmax", "cumsum") else ("int32",)
    )
    if kind.startswith("reduce"):
        draw.maybe(keep_dims=draw.flag())
    return kind


def _indexed(draw):
    kind = draw.random.choice(
        ("gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis", "scatter_nd")
    )
    shape = draw.shape(draw.random.randint(1, 4))
    rank, axis = len(shape), draw.random.randrange(len(shape))
    count = (draw.random.randint(1, 3),)
    width = draw.random.randint(1, rank)
    if kind.endswith("nd"):
        columns = [draw.indices(size, count) for size in shape[:width]]
        indices, updates = np.stack(columns, -1), count + shape[width:]
    elif kind.endswith("axis"):
        wanted = tuple(count[0] if place == axis else size for place, size in enumerate(shape))
        indices = updates = None
        indices, updates = draw.indices(shape[axis], wanted), wanted
    else:
        indices, updates = draw.indices(shape[axis], count), shape[:axis] + count + shape[axis + 1 :]
    indices = draw.indices(shape[axis], draw.shape()) if draw.rare(0.05) else indices
    draw.give(**{"x" if kind.startswith("gather") else "data": draw.floats(shape)}, indices=indices)
    if not kind.endswith("nd"):
        draw.give(axis=np.int32(axis) if not draw.rare() else draw.axis(rank))
    if kind.startswith("scatter"):
        updates = draw.shape() if draw.rare(0.05) else updates
        draw.give(updates=draw.floats(updates), mode=draw.random.choice(("add", "sub", "mul", "min", "max")))
    elif kind != "gather_along_axis" and draw.rare():
        draw.give(batch_dims=np.int32(draw.integer(0, 1)))
    return kind


def _shaped(draw):
    kind = draw.random.choice(
        ("reshape", "transpose", "expand_dims", "squeeze", "flatten2d", "reverse", "tile")
    )
    shape = draw.shape()
    rank = len(shape)
    if kind == "reshape":
        factors = [*shape]
        draw.random.shuffle(factors)
        while len(factors) > 1 and draw.rare(0.4):
            factors.append(factors.pop() * factors.pop())
        factors = [*factors, 1][draw.random.choice((0, 0, 0, 1)) :] if draw.rare(0.2) else factors
        factors = [0 if draw.rare(0.15) else one for one in factors]
        factors = [-1 if draw.rare(0.1) else one for one in factors]
        draw.give(
            shape=np.array(
                [draw.random.choice(HOSTILE) if draw.rare(0.05) else one for one in factors], np.int32
            )
        )
    elif kind == "transpose":
        order = draw.random.sample(range(rank), rank)
        draw.give(perm=draw.axes(rank) if draw.rare() else np.array(order, np.int32))
    elif kind == "expand_dims":
        draw.give(axes=draw.axes(rank + 1))
    elif kind == "squeeze":
        shape = tuple(1 if draw.rare(0.5) else size for size in shape)
        ones = [axis for axis, size in enumerate(shape) if size == 1]
        draw.maybe(axes=draw.axes(rank) if draw.rare() else np.array(ones, np.int32))
    elif kind == "flatten2d":
        draw.maybe(axis=draw.axis(rank))
    elif kind == "reverse":
        draw.maybe(axes=draw.axes(rank))
    else:
        draw.give(reps=draw.integers(1, 3, rank))
    draw.give(x=draw.floats(shape))
    return kind


def _blocks(draw):
    kind = draw.random.choice(
        (
            "depth_to_space",
            "space_to_depth",
            "pixel_shuffle",
            "pixel_unshuffle",
            "space_to_batch",
            "batch_to_space",
        )
    )
    b = draw.random.randint(1, 3)
    n, c, h, w = draw.shape(4)
    down = kind in ("space_to_depth", "pixel_unshuffle", "space_to_batch")
    shape = (
        (n, c, h * b, w * b) if down else (n * (b * b if kind == "batch_to_space" else 1), c * b * b, h, w)
    )
    shape = draw.image() if draw.rare(0.1) else shape
    factor = np.int32(b if not draw.rare(0.2) else draw.integer(1, 3))
    name = {"pixel_shuffle": "upscale_factor", "pixel_unshuffle": "downscale_factor"}.get(kind, "block_size")
    if kind.endswith("batch") or kind.startswith("batch"):
        draw.give(block_shape=np.array([factor, factor], np.int32))
        pads = draw.integers(0, 1 if draw.rare(0.3) else 0, 4)
        draw.give(**{"paddings" if down else "crops": pads.reshape(2, 2) if pads.size == 4 else pads})
    else:
        draw.give(**{name: factor})
    draw.give(x=draw.floats(shape))
    return kind


def _windows(draw):
    kind = draw.random.choice(("conv", "conv", "conv_transpose", "max_pool", "avg_pool", "l2_pool"))
    spatial = draw.random.randint(1, 3)
    n, channels = draw.random.randint(1, 2), draw.random.choice((1, 2, 4))
    shape = (n, channels, *(draw.random.randint(2, 6) for _ in range(spatial)))
    shape = draw.image(spatial) if draw.rare(0.05) else shape
    kernel = tuple(draw.random.randint(1, 3) for _ in range(spatial))
    draw.maybe(strides=draw.integers(1, 2, spatial))
    draw.give(pad_type=draw.random.choice(("valid", "custom", "same", "same_lower")))
    draw.maybe(pad=draw.integers(0, 1, 2 * spatial))
    if kind.startswith("conv"):
        groups = draw.random.choice((1, 1, 2)) if channels > 1 else 1
        out = draw.random.choice((2, 4))
        weight = (out, channels // groups, *kernel) if kind == "conv" else (channels, out, *kernel)
        draw.give(weight=draw.floats(draw.shape() if draw.rare(0.05) else weight))
        draw.give(groups=np.int32(groups if not draw.rare(0.08) else draw.integer(1, 3)))
        draw.maybe(dilations=draw.integers(1, 2, spatial))
        if draw.rare(0.3):
            draw.give(
                bias=draw.floats(
                    draw.shape(1) if draw.rare() else (weight[0] if kind == "conv" else out * groups,)
                )
            )
        if kind == "conv_transpose" and draw.rare(0.15):
            draw.give(output_shape=np.array([n, out * groups, *draw.integers(3, 9, spatial)], np.int32))
    else:
        draw.give(
            kernel_sizes=np.array(kernel, np.int32) if not draw.rare() else draw.integers(1, 3, spatial)
        )
        draw.maybe(ceil_mode=draw.flag())
        if kind == "avg_pool":
            draw.maybe(exclude_padding_from_average=draw.flag())
    draw.give(x=draw.floats(shape))
    return kind


def _resized(draw):
    kind = draw.random.choice(
        (
            "upsample_nearest_neighbor",
            "upsample_bilinear",
            "resize_nearest_neighbor",
            "resize_bilinear",
            "resize",
            "crop",
            "pad",
        )
    )
    shape = draw.image()
    modes = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")
    if kind.startswith("upsample"):
        draw.give(scale_factor_height=draw.number(), scale_factor_width=draw.number())
        if kind.endswith("linear"):
            draw.maybe(align_corners=draw.flag(), half_pixel_centers=draw.flag())
    elif kind == "resize":
        draw.give(shape=draw.integers(1, 9, 4), resized_dims=np.int32(draw.integer(1, 2)))
        draw.give(
            interpolation_mode=draw.random.choice(("LINEAR", "NEAREST_NEIGHBOR")),
            sampling_mode=draw.random.choice(modes),
        )
    elif kind.startswith("resize"):
        draw.give(
            target_size_height=np.int32(draw.integer(1, 9)), target_size_width=np.int32(draw.integer(1, 9))
        )
        if kind.endswith("linear"):
            draw.give(sampling_mode=draw.random.choice(modes))
    elif kind == "crop":
        draw.give(crop_height=draw.integers(0, 1, 2), crop_width=draw.integers(0, 1, 2))
    else:
        shape = draw.shape()
        draw.give(pad=draw.integers(0, 2, 2 * draw.random.randint(1, max(1, len(shape)))))
        draw.give(mode=draw.random.choice(("constant", "reflect", "replicate")), constant_val=np.float32(1))
    draw.give(x=draw.floats(shape))
    return kind


def _sliced(draw):
    kind = draw.random.choice(
        (
            "slice_by_index",
            "slice_by_index",
            "slice_by_size",
            "slice_update",
            "split",
            "sliding_windows",
            "reverse_sequence",
        )
    )
    shape = draw.shape(draw.random.randint(1, 4))
    rank = len(shape)
    x = draw.floats(shape)
    draw.give(x=x)
    if kind == "slice_by_size":
        begin = [draw.integer(-size, size - 1) for size in shape]
        size = [
            -1 if draw.rare(0.3) else draw.integer(1, max(1, n - max(b, 0)))
            for n, b in zip(shape, begin, strict=True)
        ]
        draw.give(begin=np.array(begin, np.int32), size=np.array(size, np.int32))
    elif kind == "split":
        axis, sizes = draw.axis(rank), draw.integers(1, 3, 2)
        if -rank <= axis < rank and not draw.rare():
            first = shape[axis] // 2
            sizes = np.array([first, shape[axis] - first], np.int32)
        draw.give(
            axis=axis,
            **({"split_sizes": sizes} if draw.rare(0.5) else {"num_splits": np.int32(draw.integer(2, 2))}),
        )
        draw.results = ("fp32", "fp32")
    elif kind == "sliding_windows":
        draw.give(axis=draw.axis(rank), size=np.int32(draw.integer(1, 3)))
        draw.maybe(stride=np.int32(draw.integer(1, 3)))
    elif kind == "reverse_sequence":
        draw.give(x=draw.floats(draw.shape(3)) if draw.rare(0.8) else x)
        batch, sequence = draw.random.choice(((0, 1), (1, 0), (0, 2), (1, 1)))
        length = draw.arguments["x"].shape
        count = length[batch] if batch < len(length) else 1
        draw.give(lengths=draw.integers(0, 3, count), batch_axis=np.int32(batch), seq_axis=np.int32(sequence))
    else:
        draw.give(begin=draw.integers(-4, 3, rank), end=draw.integers(-4, 5, rank))
        draw.maybe(stride=draw.integers(1, 2, rank) if draw.rare(0.7) else draw.integers(-2, -1, rank))
        draw.maybe(
            **{name: np.array([draw.rare(0.4) for _ in range(rank)]) for name in ("begin_mask", "end_mask")}
        )
        if draw.rare(0.3):
            draw.give(squeeze_mask=np.array([draw.rare(0.3) for _ in range(rank)]))
        if kind == "slice_update":
            try:
                from sd_mil.engines.reference.ops.slicing import slice_by_index

                wanted = slice_by_index(**draw.arguments).shape
            except (ValueError, IndexError):
                wanted = draw.shape(rank)
            draw.give(update=draw.floats(wanted if not draw.rare() else draw.shape(rank)))
    return kind


def _filled(draw):
    kind = draw.random.choice(("fill", "fill_like", "range_1d", "one_hot", "band_part", "concat", "stack"))
    if kind == "fill":
        draw.give(shape=draw.integers(1, 4, draw.random.randint(1, 4)))
        draw.maybe(value=np.float32(2))
    elif kind == "fill_like":
        draw.give(ref_tensor=draw.floats(draw.shape()))
    elif kind == "range_1d":
        draw.give(
            start=np.int32(draw.integer(0, 3)),
            end=np.int32(draw.integer(0, 20)),
            step=np.int32(draw.integer(1, 3)),
        )
        draw.results = ("int32",)
    elif kind == "one_hot":
        shape = draw.shape()
        draw.give(indices=draw.indices(4, shape), one_hot_vector_size=np.int32(draw.integer(1, 5)))
        draw.maybe(axis=draw.axis(len(shape) + 1))
        draw.results = ("int32",)
    elif kind == "band_part":
        draw.give(x=draw.floats(draw.shape(draw.random.randint(2, 4))))
        draw.maybe(lower=np.int32(draw.integer(-1, 3)), upper=np.int32(draw.integer(-1, 3)))
    else:
        shape = draw.shape()
        shapes = [
            shape if not draw.rare(0.1) else draw.shape(len(shape)) for _ in range(draw.random.randint(1, 3))
        ]
        draw.give(values=tuple(map(draw.floats, shapes)), axis=draw.axis(len(shape)))
        if kind == "concat":
            draw.maybe(interleave=draw.flag())
    return kind


def _products(draw):
    kind = draw.random.choice(
        (
            "matmul",
            "linear",
            "einsum",
            "scaled_dot_product_attention",
            "layer_norm",
            "instance_norm",
            "batch_norm",
            "l2_norm",
            "local_response_norm",
        )
    )
    batch = draw.shape(draw.random.randint(0, 2))
    m, k, n = draw.shape(3)
    if kind == "matmul":
        draw.give(
            x=draw.floats((*batch, m, k)), y=draw.floats((*batch, n, k) if draw.rare(0.3) else (*batch, k, n))
        )
        draw.maybe(transpose_x=draw.flag(), transpose_y=draw.flag())
    elif kind == "linear":
        draw.give(
            x=draw.floats((*batch, k)), weight=draw.floats((n, k) if not draw.rare() else draw.shape(2))
        )
        draw.maybe(bias=draw.floats((n,) if not draw.rare() else draw.shape(1)))
    elif kind == "einsum":
        equations = (
            "bkhc,bchq->bkhq",
            "bchq,bkhc->bkhq",
            "ab,bc->ac",
            "ab,ab->ab",
            "a,b->ab",
            "aab,bc->ac",
            "",
            "->",
            "a...,b->ab",
            "abcdefghij,j->a",
        )
        equation = draw.random.choice(equations)
        sizes = {letter: draw.size() for letter in "abcdefghijkq"}
        terms = [*equation.partition("->")[0].split(","), "", ""][:2]
        shapes = [tuple(sizes.get(letter, 1) for letter in term if letter != ".") for term in terms]
        draw.give(
            values=tuple(draw.floats(draw.shape() if draw.rare(0.1) else shape) for shape in shapes),
            equation=equation,
        )
    elif kind == "scaled_dot_product_attention":
        draw.give(
            query=draw.floats((*batch, m, k)),
            key=draw.floats((*batch, n, k)),
            value=draw.floats((*batch, n, 3)),
        )
        if draw.rare(0.3):
            draw.give(attn_mask=draw.floats((m, n) if not draw.rare() else draw.shape()))
    else:
        shape = draw.image()
        draw.give(x=draw.floats(shape))
        wanted = (shape[1] if len(shape) > 1 else 1,)
        if kind == "layer_norm":
            axis = draw.random.randrange(max(1, len(shape)))
            draw.give(axes=draw.axes(len(shape)) if draw.rare() else np.array([axis], np.int32))
            wanted = (shape[axis] if shape else 1,)
        if kind == "local_response_norm":
            draw.give(size=np.int32(draw.integer(1, 5)))
        wanted = draw.shape(1) if draw.rare(0.05) else wanted
        if kind == "batch_norm":
            draw.give(mean=draw.floats(wanted), variance=np.abs(draw.floats(wanted)) + 1)
        if kind.endswith(("layer_norm", "instance_norm", "batch_norm")):
            draw.maybe(gamma=draw.floats(wanted), beta=draw.floats(wanted))
    return kind


def _recurrent(draw):
    kind, gates = draw.random.choice((("lstm", 4), ("gru", 3), ("rnn", 1)))
    s, n, i, h = (draw.random.randint(1, 4) for _ in range(4))
    both = kind == "lstm" and draw.rare(0.3)
    shapes = {
        "x": (s, n, i),
        "initial_h": (n, h * (1 + both)),
        "weight_ih": (gates * h, i),
        "weight_hh": (gates * h, h),
    }
    if kind == "lstm":
        shapes["initial_c"] = shapes["initial_h"]
    if draw.rare(0.5):
        shapes["bias"] = (gates * h,)
    if both:
        shapes |= {
            f"{name}_back": shapes[name] for name in ("weight_ih", "weight_hh", "bias") if name in shapes
        }
    shapes = {name: draw.shape(len(shape)) if draw.rare(0.04) else shape for name, shape in shapes.items()}
    for name in ("initial_h", "initial_c"):
        if name in shapes and draw.rare(0.05):
            shapes[name] = (draw.random.randint(1, 5), *shapes[name][1:])
    draw.give(**{name: draw.floats(shape) / 4 for name, shape in shapes.items()})
    draw.give(
        direction="bidirectional" if both else draw.random.choice(("forward", "reverse")),
        output_sequence=draw.flag(),
    )
    draw.results = ("fp32",) * (3 if kind == "lstm" else 2)
    return kind


def _sampled(draw):
    n, c, h, w = (draw.random.randint(1, 5) for _ in range(4))
    points = draw.floats((n if not draw.rare() else 3, *draw.shape(2), 2 if not draw.rare() else 1))
    if points.size and draw.rare(0.2):
        points.flat[0] = draw.random.choice((np.nan, np.inf, -np.inf, 1e9, -1e30, 100))
    draw.give(
        x=draw.floats((n, c, h, w)),
        coordinates=points,
        align_corners=draw.flag(),
        padding_value=np.float32(0),
    )
    draw.give(sampling_mode=draw.random.choice(("bilinear", "nearest")))
    draw.give(padding_mode=draw.random.choice(("constant", "border", "reflection", "symmetric")))
    draw.give(
        coordinates_mode=draw.random.choice(
            ("unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")
        )
    )
    return "resample"


def _quantised(draw):
    kind = draw.random.choice(("quantize", "dequantize"))
    shape = draw.shape()
    axis = draw.axis(len(shape))
    size = shape[axis] if -len(shape) <= axis < len(shape) else 1
    each = draw.rare(0.4)
    wanted = () if not each else (size if not draw.rare() else 3,)
    draw.give(
        input=draw.floats(shape)
        if kind == "quantize"
        else draw.indices(100, shape).clip(-128, 127).astype(np.int8)
    )
    draw.give(scale=np.float32(np.abs(draw.floats(wanted)) + 0.25))
    if each:
        draw.give(axis=axis)
    if kind == "quantize":
        draw.give(output_dtype=draw.random.choice(("int8", "uint8")))
        draw.results = (draw.arguments["output_dtype"],)
    return kind


FAMILIES = (
    *(
        _unary,
        _binary,
        _reduction,
        _along_axis,
        _indexed,
        _indexed,
        _shaped,
        _shaped,
        _blocks,
        _windows,
        _windows,
    ),
    *(_resized, _sliced, _sliced, _filled, _products, _recurrent, _sampled, _quantised),
)
_TENSORS = {
    "x",
    "y",
    "data",
    "updates",
    "update",
    "query",
    "key",
    "value",
    "values",
    "coordinates",
    "ref_tensor",
}


def program(seed):
    """A program of one operation, and arrays for its inputs."""
    draw = Draw(random.Random(seed))
    kind = draw.random.choice(FAMILIES)(draw)
    inputs, arrays, arguments = {}, {}, {}
    for name, value in draw.arguments.items():
        given = []
        for place, one in enumerate(value if isinstance(value, tuple) else (value,)):
            tensor = name in _TENSORS or (name in ("indices", "input", "lengths") and draw.rare(0.7))
            chance = 0.85 if tensor else 0.4 if name in ("initial_h", "initial_c", "shape", "end") else 0.06
            if isinstance(one, str) or not draw.rare(chance):
                given.append(graphs.tensor(one))
                continue
            array, port = np.asarray(one), f"{name}{place}"
            declared = [None if draw.rare(0.06) else size for size in array.shape]
            inputs[port] = (graphs._MIL_NAMES[array.dtype], *declared)
            arrays[port] = array
            given.append(Reference(port))
        arguments[name] = tuple(given)
    outputs = tuple(Variable(f"out{place}", UnrankedType(one, ())) for place, one in enumerate(draw.results))
    names = [one.name for one in outputs]
    open_one = graphs.program(inputs, [Operation(kind, "op", arguments, outputs)], names)
    ranks = _ranks(open_one, arrays, draw)
    outputs = tuple(
        Variable(one.name, TensorType(one.type.dtype, rank)) for one, rank in zip(outputs, ranks, strict=True)
    )
    return graphs.program(inputs, [Operation(kind, "op", arguments, outputs)], names), arrays


def _ranks(made, arrays, draw):
    """What to declare: the shapes that come out, or unknown sizes; if nothing does, as many as came in."""
    found = _outcome(compile_reference, made, arrays)
    if isinstance(found, Exception):
        first = max((np.ndim(one) for one in arrays.values()), default=1)
        return [(None,) * first] * len(draw.results)
    open_ones = draw.rare(0.4)
    return [tuple(None if open_ones else size for size in np.shape(one)) for one in found.values()]


def difference(seed):
    """What the engines disagree about, or what was not typed; None when all is well."""
    made, arrays = program(seed)
    return compare(made, arrays)


def differences(seeds):
    """As :func:`difference`, by seed, of those that have one.

    Programs that the reference engine runs are compiled as one, which takes little longer than one of them;
    where that fails or disagrees, each is looked at alone.
    """
    from sd_mil.engines.portable import compile_program

    drawn = {seed: program(seed) for seed in seeds}
    slow = {seed: _outcome(compile_reference, *one) for seed, one in drawn.items()}
    ran = {seed: found for seed, found in slow.items() if not isinstance(found, Exception)}
    fast = _outcome(compile_program, *_joined({seed: drawn[seed] for seed in ran})) if ran else {}
    alone = [seed for seed in seeds if seed not in ran or not _agrees(seed, slow[seed], fast)]
    found = {seed: compare(*drawn[seed]) for seed in alone}
    return {seed: said for seed, said in found.items() if said}


def _joined(drawn):
    """One program of several: their values by the names ``seed_name``."""
    inputs, operations, outputs, given = {}, [], [], {}
    for seed, (made, arrays) in drawn.items():
        (operation,) = made.main.body.operations
        inputs |= {f"{seed}_{one.name}": (one.type.dtype, *one.type.shape) for one in made.main.inputs}
        given |= {f"{seed}_{name}": value for name, value in arrays.items()}
        arguments = {
            name: tuple(
                Reference(f"{seed}_{one.name}") if isinstance(one, Reference) else one for one in several
            )
            for name, several in operation.inputs.items()
        }
        made_outputs = tuple(Variable(f"{seed}_{one.name}", one.type) for one in operation.outputs)
        operations.append(Operation(operation.type, f"{seed}_op", arguments, made_outputs))
        outputs += [one.name for one in made_outputs]
    return graphs.program(inputs, operations, outputs), given


def _agrees(seed, slow, fast):
    if isinstance(fast, Exception):
        return False
    pairs = [(expected, fast[f"{seed}_{name}"]) for name, expected in slow.items()]
    return all(expected.shape == got.shape and _close(expected, got) for expected, got in pairs)


def compare(made, arrays, compile_portable=None):
    """As :func:`difference`, of any program."""
    from sd_mil.engines.portable import compile_program

    slow = _outcome(compile_reference, made, arrays)
    fast = _outcome(compile_portable or compile_program, made, arrays)
    operation = made.main.body.operations[0]
    where = f"{operation.type} {_parameters(operation)}"
    for engine, found in (("reference", slow), ("portable", fast)):
        if isinstance(found, Exception) and not isinstance(found, SdMilError):
            return f"{where}: {engine} raises {type(found).__name__}: {found}"
    if isinstance(slow, Exception) or isinstance(fast, Exception):
        both = isinstance(slow, Exception) and isinstance(fast, Exception)
        return None if both or _allowed(operation, slow, fast) else f"{where}: {_said(slow)} | {_said(fast)}"
    for name, expected in slow.items():
        same = expected.shape == fast[name].shape and _close(expected, fast[name])
        if not same and not _allowed(operation, slow, fast):
            return f"{where}: {_said(expected)} | {_said(fast[name])}"
    return None


def _outcome(compile_one, made, arrays):
    try:
        return compile_one(made).run(arrays)
    except Exception as error:  # whatever it is, it is what is looked at
        return error


def _close(expected, got):
    if expected.dtype.kind == "f":  # of nothing, the largest is the lowest there is
        expected, got = (np.where(one == np.finfo(np.float32).min, -np.inf, one) for one in (expected, got))
    tolerance = 1 if expected.dtype.kind in "iu" and expected.dtype.itemsize == 1 else 2e-4
    return bool(np.allclose(expected, got, rtol=2e-4, atol=tolerance, equal_nan=True))


def _allowed(operation, slow, fast):
    """Differences that are no fault: what the two libraries define differently, or one of them lacks."""
    memory = any("elements" in str(one) or "memory" in str(one) for one in (slow, fast))
    nothing = isinstance(fast, dict) and any(one.size == 0 for one in fast.values())  # of unknown sizes
    if memory or nothing or "REFLECT padding mode" in str(fast):
        return True
    if isinstance(slow, Exception) and operation.type == "einsum":  # OpenVINO knows more equations
        return True
    if isinstance(slow, Exception) or isinstance(fast, Exception):
        return False
    if operation.type == "resample":  # which of two pixels is nearest, at the same distance or at no number
        return True
    # a division of integers by zero
    return operation.type in ("floor_div", "mod") and operation.outputs[0].type.dtype == "int32"


def _said(found):
    if isinstance(found, Exception):
        return f"{type(found).__name__}: {str(found)[-150:]}"
    if isinstance(found, dict):
        return f"ran, {[one.shape for one in found.values()]}"
    return f"{found.shape} {found.ravel()[:6]}"


def _parameters(operation):
    shown = {}
    for name, given in operation.inputs.items():
        values = [one.value if hasattr(one, "value") else one.name for one in given]
        shown[name] = [one if isinstance(one, str) else _short(np.asarray(one)) for one in values]
    return f"{shown} -> {[str(one.type) for one in operation.outputs]}"


def _short(array):
    return array.tolist() if array.size < 9 else array.shape
