"""Sizes and ranks of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sd_mil.analysis.lint.rule import Hit, Source, rule
from sd_mil.analysis.lint.scope import Scope
from sd_mil.ir.ports import ShapeRange
from sd_mil.rewriting.attention_pieces import LARGEST_SOFTMAX

_MAX_RANK: Final = 5
#: Along width and height (the last two axes), and along channels (the third from the end).
_MAX_SIZE: Final = 16384
_MAX_CHANNELS: Final = 65536


@rule(
    "ane-rank",
    "warning",
    says=f"The Neural Engine computes tensors of at most {_MAX_RANK} dimensions.",
    change="reshape to fewer dimensions before these operations",
    source=Source(
        "ANEForge: Graph & operators (rank must be between 0 and 5)",
        "https://aneforge.readthedocs.io/en/latest/api/graph/",
        "read 2026-11",
    ),
)
def ane_rank(scope: Scope) -> Iterator[Hit]:
    """Tensors of more than five dimensions."""
    for operation, output in scope.computed:
        if len(output.type.shape) > _MAX_RANK:
            yield Hit(f"{len(output.type.shape)} dimensions", operation)


@rule(
    "ane-dimension",
    "warning",
    says=f"The Neural Engine computes tensors of at most {_MAX_SIZE} along width and height, and of "
    f"{_MAX_CHANNELS} channels.",
    change="split the axis, or reshape it into two (coremltools' BC1S layout keeps positions last)",
    source=Source(
        "Apple Neural Engine guide, 17: Model-design rules (swept on an M1)",
        "https://ane-guide.readthedocs.io/en/latest/part-5-practice/17-model-design-rules.html",
        "read 2026-11",
    ),
)
def ane_dimension(scope: Scope) -> Iterator[Hit]:
    """Axes that are too long."""
    for operation, output in scope.computed:
        shape = [size or 0 for size in output.type.shape]
        limits = [_MAX_CHANNELS if place == len(shape) - 3 else _MAX_SIZE for place in range(len(shape))]
        if any(size > limit for size, limit in zip(shape, limits, strict=True)):
            yield Hit(f"a tensor {output.type}", operation)


@rule(
    "ane-softmax-size",
    "warning",
    says=f"No softmax of more than {LARGEST_SOFTMAX} elements is known to run on the Neural Engine: that "
    "many has one head of Apple's SPLIT_EINSUM packages at 64 x 64 latents.",
    change="compute attention for a part of the queries at a time (SPLIT_EINSUM_V2), or head by head",
    source=Source(
        "apple/ml-stable-diffusion: SPLIT_EINSUM, SPLIT_EINSUM_V2, and the packages on the Hub",
        "https://github.com/apple/ml-stable-diffusion",
        "2025-07-03",
    ),
    repair=True,
)
def ane_softmax_size(scope: Scope) -> Iterator[Hit]:
    """Scores of attention, and other softmaxes, that are too large."""
    large = {
        id(one.operations[one.softmax]): one.operations[one.softmax]
        for one in scope.attentions
        if one.elements > LARGEST_SOFTMAX
    }
    for operation in large.values():
        yield Hit("scores of attention", operation)
    for operation, output in scope.computed:
        is_alone = operation.type == "softmax" and id(operation) not in large
        if is_alone and _elements(output.type.shape) > LARGEST_SOFTMAX:
            yield Hit(f"a softmax of {output.type}", operation)


def _elements(shape: tuple[int | None, ...]) -> int:
    product = 1
    for size in shape:
        product *= size or 1
    return product


@rule(
    "flexible-range",
    "warning",
    says="Core ML optimises a finite set of shapes when it compiles a model; a range leaves them unknown.",
    change="enumerate the shapes, or write a package (iOS18: a function) for each",
    source=Source(
        "Core ML Tools guide: Flexible Input Shapes",
        "https://apple.github.io/coremltools/docs-guides/source/flexible-inputs.html",
        "read 2026-11",
    ),
)
def flexible_range(scope: Scope) -> Iterator[Hit]:
    """Inputs whose shape is a range."""
    for port in scope.description.inputs:
        if isinstance(port.flexibility, ShapeRange):
            yield Hit(f"input {port}")


@rule(
    "ane-state-width",
    "warning",
    says="The Neural Engine of macOS 15.2 fails on a state whose last dimension is no multiple of 32.",
    change="pad the state to a multiple of 32",
    source=Source(
        "apple/coremltools#2631: Stateful model fails on ANE",
        "https://github.com/apple/coremltools/issues/2631",
        "2025-12-19",
    ),
    since=18,
)
def ane_state_width(scope: Scope) -> Iterator[Hit]:
    """States of an odd width."""
    for port in scope.description.states:
        if port.shape and port.shape[-1] is not None and port.shape[-1] % 32:
            yield Hit(f"state {port}")
