"""CLIP token ids, exactly those of transformers; prompt weights as the web UI reads them."""

from sd_tokenize.clip import ClipTokenizer, Tokens
from sd_tokenize.emphasis import Part, parse_emphasis
from sd_tokenize.errors import TokenizerError

__all__ = ["ClipTokenizer", "Part", "TokenizerError", "Tokens", "parse_emphasis"]
