"""Modules that call torch's fused attention, made to call another.

``torch.nn.functional.scaled_dot_product_attention`` is where most Transformers compute attention today,
whatever they do around it: rotary positions, norms of queries and keys, shared key heads, caches, several
streams of tokens. A rewritten module keeps its class, code, parameters and their names. While its
``forward`` runs, a ``torch.overrides.TorchFunctionMode``, which belongs to this call and this thread,
answers that one function.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .errors import UnsupportedCallError
from .functions import Attention
from .masks import causal_mask, combine_masks
from .rewrite import Refusal, Replacement, Rule


def fused_attention(attend: Attention) -> Rule:
    """A rule for modules whose own ``forward`` calls ``scaled_dot_product_attention``.

    ``attend`` works in BSC, as ``on_bsc(split_einsum)`` or :func:`sd_attention.opaque` do.
    """

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        if not mentions(forward_of(module), "scaled_dot_product_attention"):
            return None
        return Replacement(with_attention(module, attend), enter=True)

    return rule


def mentions(function: Callable[..., Any], *names: str) -> bool:
    """Whether the code of a function refers to one of some globals or attributes by name."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and any(name in code.co_names for name in names)


def forward_of(module: nn.Module) -> Callable[..., Any]:
    """The ``forward`` of a module's class, also where :func:`with_attention` has put one in front of it."""
    kind: Any = type(module)
    forward: Callable[..., Any] = (kind.__bases__[1] if issubclass(kind, _Attending) else kind).forward
    return forward


def with_attention(module: nn.Module, attend: Attention) -> nn.Module:
    """``module`` with every fused attention of its ``forward`` computed by ``attend``, which works in BSC.

    The result is a shallow copy: parameters, buffers and modules inside are shared, hooks are its own.
    """
    clone = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict | set):
            object.__setattr__(clone, name, copy.copy(value))
    clone.__class__ = _attending(type(module))
    object.__setattr__(clone, "_attend", attend)
    return clone


class _Attending(nn.Module):
    """What :func:`with_attention` puts in front of a module's class."""

    _attend: Attention

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Substitution(self._attend) as substitution:
            output = super().forward(*args, **kwargs)
        if not substitution.calls:
            raise UnsupportedCallError(
                f"expected {type(self).__name__} to call torch's scaled_dot_product_attention, got "
                "none: undo whatever set another attention backend, or leave this module out of the rewrite"
            )
        return output

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self).__bases__[1], vars(self))


def _attending(kind: type[nn.Module]) -> type[nn.Module]:
    """``kind`` with :class:`_Attending` in front of it; the same class each time."""
    if issubclass(kind, _Attending):
        return kind
    if kind not in _CLASSES:
        _CLASSES[kind] = type(kind.__name__, (_Attending, kind), {"__module__": kind.__module__})
    return _CLASSES[kind]


_CLASSES: WeakKeyDictionary[type[nn.Module], type[nn.Module]] = WeakKeyDictionary()


def _rebuilt(kind: type[nn.Module], state: Mapping[str, Any]) -> nn.Module:
    module = object.__new__(_attending(kind))
    vars(module).update(state)
    return module


class _Substitution(TorchFunctionMode):
    """While it is entered, torch's fused attention is computed by another function."""

    def __init__(self, attend: Attention) -> None:
        super().__init__()
        self.attend = attend
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            self.calls += 1
            return attend_as_fused(self.attend, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def attend_as_fused(
    attend: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What ``scaled_dot_product_attention`` returns for these arguments, computed by ``attend`` in BSC.

    Shapes: query ``(B, N, Q, D)``; key ``(B, N, S, D)``; value ``(B, N, S, E)``, each also without ``N``;
    fewer heads of keys and values with ``enable_gqa``; ``attn_mask`` broadcasts to ``(B, N, Q, S)``.

    Raises:
        UnsupportedCallError: tensors with another number of axes.
        AttentionShapeError: the shapes do not fit together.
    """
    if query.ndim not in (3, 4):
        raise UnsupportedCallError(f"expected a query (B, N, Q, D) or (B, Q, D), got {list(query.shape)}")
    if query.ndim == 3:
        mask = attn_mask.unsqueeze(-3) if attn_mask is not None and attn_mask.ndim == 3 else attn_mask
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        return attend_as_fused(attend, query, key, value, mask, dropout_p, is_causal, scale).squeeze(1)
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    mask = None if attn_mask is None else _with_four_axes(attn_mask, key.shape[2])
    if is_causal:
        mask = combine_masks(mask, causal_mask(query.shape[2], key.shape[2], device=query.device))
    q, k, v = (x.transpose(1, 2).flatten(2) for x in (_scaled(query, scale), key, value))
    output = attend(q, k, v, mask, query.shape[1], dropout=dropout_p)
    return output.reshape(*output.shape[:2], query.shape[1], -1).transpose(1, 2)


def _scaled(query: Tensor, scale: float | None) -> Tensor:
    """Queries times what is left of ``scale`` once attention has divided by sqrt(D)."""
    factor = 1.0 if scale is None else scale * query.shape[3] ** 0.5
    return query if abs(factor - 1.0) < 1e-12 else query * factor


def _with_four_axes(mask: Tensor, keys: int) -> Tensor:
    """A mask that broadcasts to (B, N, Q, S) as (B|1, N|1, Q|1, S)."""
    if mask.ndim > 4 or mask.ndim < 1:
        raise UnsupportedCallError(f"expected a mask that broadcasts to (B, N, Q, S), got {list(mask.shape)}")
    if mask.ndim < 4:  # an index of nothing would be an alias, which coremltools does not know
        mask = mask[(None,) * (4 - mask.ndim)]
    return mask.expand(*mask.shape[:3], keys) if mask.shape[3] == 1 else mask
