"""CLIP and T5 token ids, exactly those of transformers; prompt weights as the web UI reads them."""

from sd_tokenize.clip import ClipTokenizer, Tokens
from sd_tokenize.emphasis import Part, parse_emphasis
from sd_tokenize.errors import TokenizerError
from sd_tokenize.t5 import T5Tokenizer

__all__ = ["ClipTokenizer", "Part", "T5Tokenizer", "TokenizerError", "Tokens", "parse_emphasis"]
