"""What can go wrong when attention is computed, rewritten or chosen.

SdAttentionError
├── AttentionShapeError   queries, keys, values, mask and heads do not fit together
├── UnsupportedCallError  a call asks for something that the chosen attention cannot give
├── NothingReplacedError  no module of the model was taken by a rule
└── RecommendationError   no implementation can be recommended for what was asked
"""

from __future__ import annotations


class SdAttentionError(ValueError):
    """Base of every error that sd-attention raises on bad input."""


class AttentionShapeError(SdAttentionError):
    """Queries, keys, values, mask and heads do not fit together: expected, got."""


class UnsupportedCallError(SdAttentionError):
    """A call asks for something that the chosen attention cannot give: what, and what to do."""


class NothingReplacedError(SdAttentionError):
    """No module was taken by a rule: what the rules said of the ones that they looked at."""


class RecommendationError(SdAttentionError):
    """No implementation can be recommended: an unknown target, a size that is not positive."""
