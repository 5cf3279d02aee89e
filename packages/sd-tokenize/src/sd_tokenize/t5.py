"""T5's tokenizer, of models whose denoiser listens to one (Stable Diffusion 3, Flux): text to ids.

The unigram model and its normalization run in the ``tokenizers`` library, from ``tokenizer.json``.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sd_tokenize.clip import SURROGATE, Tokens
from sd_tokenize.errors import TokenizerError, loading
from sd_tokenize.files import read_json, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Of every T5; a folder's ``tokenizer_config.json`` may name others.
END: Final = "</s>"
PADDING: Final = "<pad>"
#: How many tokens diffusers gives Stable Diffusion 3 by default.
MAX_LENGTH: Final = 256


class T5Tokenizer:
    """Text to exactly the ids of ``transformers.T5TokenizerFast``: tokens, an end, padding.

    Build it with :meth:`from_folder`. It is immutable.
    """

    def __init__(self, backend: Tokenizer, *, end: str = END, padding: str = PADDING) -> None:
        """Around a tokenizer of the library ``tokenizers``.

        Raises:
            TokenizerError: it does not know ``end`` or ``padding``.
        """
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self.eos_id = _id_of(backend, end)
        self.pad_id = _id_of(backend, padding)

    @classmethod
    def from_folder(cls, folder: str | PathLike[str]) -> T5Tokenizer:
        """Read ``tokenizer.json`` of the tokenizer folder of a checkpoint or bundle, and its special tokens.

        Raises:
            TokenizerError: the file is missing or malformed, has no unigram model, or the library tokenizers
                does not load.
        """
        path = Path(folder)
        if not (path / "tokenizer.json").is_file():
            raise TokenizerError(
                f"expected tokenizer.json in {path}, got none: transformers writes one beside spiece.model "
                "(AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
            )
        config_path = path / "tokenizer_config.json"
        config = read_json(config_path) if config_path.is_file() else {}
        return cls(
            _backend(path / "tokenizer.json"),
            end=_named(config.get("eos_token", END)),
            padding=_named(config.get("pad_token", PADDING)),
        )

    def encode(self, text: str, *, length: int = MAX_LENGTH) -> Tokens:
        """Token ids of ``text``, an end and padding: ``length`` of them, and what did not fit.

        Raises:
            TokenizerError: ``text`` holds half of a surrogate pair, or ``length`` has no room for the end.
        """
        if length < 1:
            raise TokenizerError(f"expected a length of at least 1 (the end), got {length}")
        if lone := SURROGATE.search(text):
            raise TokenizerError(f"expected Unicode text, got a lone surrogate at position {lone.start()}")
        encoding = self._backend.encode(text, add_special_tokens=False)
        room = length - 1
        kept = encoding.ids[:room]
        cut = text[encoding.offsets[room][0] :].strip() if len(encoding.ids) > room else ""
        return Tokens((*kept, self.eos_id, *[self.pad_id] * (room - len(kept))), cut)


def _backend(path: Path) -> Tokenizer:
    model = read_json(path).get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind != "Unigram":
        raise TokenizerError(f'expected a model of type "Unigram" in {path}, got {kind!r}: T5 has no other')
    with loading():
        from tokenizers import Tokenizer
    try:
        return Tokenizer.from_str(read_text(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise TokenizerError(f"expected a tokenizer in {path}, got: {error}") from error


def _named(token: object) -> str:
    """A special token, which may be written with how it is matched."""
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise TokenizerError(f"expected a special token in tokenizer_config.json, got {token!r}")
    return content


def _id_of(backend: Tokenizer, token: str) -> int:
    index = backend.token_to_id(token)
    if index is None:
        raise TokenizerError(f"expected the token {token!r} in the vocabulary, got one without it")
    return int(index)
