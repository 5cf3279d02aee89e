"""What can go wrong when a tokenizer is read or used.

TokenizerError    a tokenizer file is missing, malformed or contradicts another: expected, got, where
"""

from __future__ import annotations


class TokenizerError(ValueError):
    """A tokenizer that cannot be built from the files given."""
