"""CLIP token ids, exactly those of transformers."""

from sd_tokenize.clip import ClipTokenizer, Tokens
from sd_tokenize.errors import TokenizerError

__all__ = ["ClipTokenizer", "TokenizerError", "Tokens"]
