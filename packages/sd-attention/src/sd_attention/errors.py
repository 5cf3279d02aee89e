"""What can go wrong when attention is computed or rewritten.

SdAttentionError
├── AttentionShapeError   queries, keys, values, mask and heads do not fit together
└── NothingReplacedError  no module of the model was taken by a rule
"""

from __future__ import annotations


class SdAttentionError(ValueError):
    """Base of every error that sd-attention raises on bad input."""


class AttentionShapeError(SdAttentionError):
    """Queries, keys, values, mask and heads do not fit together: expected, got."""


class NothingReplacedError(SdAttentionError):
    """No module was taken by a rule: what the rules said of the ones that they looked at."""
