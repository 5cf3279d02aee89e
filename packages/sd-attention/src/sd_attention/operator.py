"""Attention as one opaque operator, so that an exporter sees a single node where attention was.

The operator takes the BSC layout, which is what Transformers hold between their linear layers. Run eagerly it
computes :func:`sd_attention.original`, so a rewritten model still works in torch (forward only: it has no
gradient and no dropout).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from .errors import UnsupportedCallError
from .functions import original
from .layouts import on_bsc

#: The operator's qualified name, as it appears in an exported graph.
OPERATOR_NAME: Final = "sd_attention::attention"


def opaque(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, *, dropout: float = 0.0
) -> Tensor:
    """Attention through the operator ``sd_attention::attention``, registered with torch on first use.

    Shapes: q ``(B, Q, C)``; k ``(B, S, C)``; v ``(B, S, E)``; mask ``(B|1, N|1, Q|1, S)``; returns ``(B, Q,
    E)``.

    Raises:
        UnsupportedCallError: ``dropout`` is not 0.
    """
    if dropout:
        raise UnsupportedCallError(
            f"expected no dropout in an exported model, got {dropout}: call eval() first"
        )
    output: Tensor = _operator()(q, k, v, mask, heads)
    return output


@cache
def _operator() -> Any:
    operator = torch.library.custom_op(
        OPERATOR_NAME,
        _eager,
        mutates_args=(),
        schema="(Tensor q, Tensor k, Tensor v, Tensor? mask, int heads) -> Tensor",
    )
    operator.register_fake(lambda q, _, v, *__: q.new_empty((*q.shape[:2], v.shape[2])))
    return operator


def _eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    return on_bsc(original)(q, k, v, mask, heads).contiguous()
