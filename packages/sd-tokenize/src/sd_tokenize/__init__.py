"""CLIP and T5 token ids, exactly those of transformers; prompt weights as the web UI reads them."""

from sd_tokenize.clip import ClipTokenizer, Tokens
from sd_tokenize.emphasis import Part, parse_emphasis
from sd_tokenize.errors import TokenizerError
from sd_tokenize.t5 import T5Tokenizer
from sd_tokenize.textual_inversion import EmbeddingError, check_token, token_names, vectors_in

__all__ = [
    "ClipTokenizer",
    "EmbeddingError",
    "Part",
    "T5Tokenizer",
    "TokenizerError",
    "Tokens",
    "check_token",
    "parse_emphasis",
    "token_names",
    "vectors_in",
]
