"""CLIP's tokenizer: text to exactly the ids of ``transformers.CLIPTokenizer``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from sd_tokenize.emphasis import Part, parse_emphasis
from sd_tokenize.errors import TokenizerError, loading
from sd_tokenize.files import Vocabulary, read_vocabulary
from sd_tokenize.filling import Weighted, fill
from sd_tokenize.special import AddedToken, SpecialTokens, read_special_tokens
from sd_tokenize.vectors import expand, followers

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: A word is a special token, an English contraction, letters, one digit, or a run of anything else.
#: Source: openai/CLIP, clip/simple_tokenizer.py.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tokens:
    """An encoded prompt.

    ``ids`` is start, the prompt's tokens, end, padding: always the whole window. ``truncated`` is the end
    of the prompt that did not fit, as the user wrote it, or the empty string. ``weights`` is what each token
    counts, as long as ``ids``, or empty where all count 1.
    """

    ids: tuple[int, ...]
    truncated: str
    weights: tuple[float, ...] = ()


class ClipTokenizer:
    """Text to token ids for CLIP text encoders.

    Build it with :meth:`from_folder`. ``size`` is how many tokens it knows.

    It is immutable, and the same in every process: merges are applied by
    rank, never by hash order.
    """

    def __init__(self, vocabulary: Vocabulary, special: SpecialTokens) -> None:
        """Assemble from data.

        Raises:
            TokenizerError: a special token is not in the vocabulary, or a merge makes a token that is not.
        """
        known = _with_added(vocabulary, special)
        ids = {role: _id_of(token, role, known) for role, token in special.roles.items()}
        for token in special.added:
            _id_of(token.content, "added token", known)
        self.max_length = special.max_length
        self.bos_id, self.eos_id, self.pad_id = ids["bos_token"], ids["eos_token"], ids["pad_token"]
        self.size = len(known)
        self._comma = known.get(",</w>")
        self._followers = followers(known, {token.content for token in special.added})
        self._backend = _backend(vocabulary, special, known)

    @classmethod
    def from_folder(cls, folder: str | PathLike[str], *, more: Sequence[str] = ()) -> ClipTokenizer:
        """Read the tokenizer folder of a checkpoint or bundle.

        Takes ``vocab.json`` and ``merges.txt``, or ``tokenizer.json``; ``tokenizer_config.json`` and
        ``special_tokens_map.json`` where they are there. ``more`` are tokens of textual inversion
        (:func:`token_names`), which get the ids behind all others, in their order.

        Raises:
            TokenizerError: a file is missing or malformed, or the library tokenizers does not load; or one of
                ``more`` is a token already.
        """
        path = Path(folder)
        vocabulary, special = read_vocabulary(path), read_special_tokens(path)
        return cls(vocabulary, _with_more(vocabulary, special, more) if more else special)

    def encode(self, text: str, *, length: int | None = None) -> Tokens:
        """Token ids of ``text``, cut or padded to ``length`` (by default ``max_length``).

        Start and end are always kept.

        Raises:
            TokenizerError: ``text`` holds half of a surrogate pair, which no encoding can express, or
                ``length`` has no room for start and end.
        """
        (window,) = self.windows(text, count=1, length=length)
        return window

    def windows(self, text: str, *, count: int, length: int | None = None) -> tuple[Tokens, ...]:
        """Token ids of a long ``text`` in ``count`` windows, each with a start, an end and padding of its
        own.

        The first windows are filled first; those that the text does not reach are empty. What the last one
        cannot hold is its ``truncated``. Errors as :meth:`encode`.
        """
        window = self._window(length)
        ids, starts = self._tokens(text)
        room = window - 2
        fitting = count * room
        cut = text[starts[fitting] :].rstrip() if len(ids) > fitting else ""
        parts = [ids[index * room : (index + 1) * room] for index in range(count)]
        last = len(parts) - 1
        return tuple(
            Tokens(self._framed(part, window), cut if index == last else "")
            for index, part in enumerate(parts)
        )

    def weighted_windows(self, text: str, *, count: int, length: int | None = None) -> tuple[Tokens, ...]:
        """As :meth:`windows`, of ``text`` in the web UI's syntax (:func:`parse_emphasis`).

        Where a window ends within words, they move to the next, back to a comma, and ``BREAK`` begins one;
        start, end and padding count 1. Errors as :meth:`encode`, and for more ``BREAK`` than windows.
        """
        window, parts = self._window(length), parse_emphasis(text)
        tokens = [token for place, part in enumerate(parts) for token in self._weighted(place, part)]
        breaks = [place for place, part in enumerate(parts) if part.breaks]
        filled, left = fill(tokens, breaks, room=window - 2, count=count, comma=self._comma)
        cut = ""
        if left is not None:
            behind = parts[left.part + 1 :]
            cut = parts[left.part].text[left.start :] + "".join(_as_written(part) for part in behind)
        last = len(filled) - 1
        return tuple(
            Tokens(
                self._framed([token.id for token in part], window),
                cut.rstrip() if index == last else "",
                (1.0, *(token.weight for token in part), *[1.0] * (window - 1 - len(part))),
            )
            for index, part in enumerate(filled)
        )

    def _weighted(self, place: int, part: Part) -> list[Weighted]:
        ids, starts = self._tokens(part.text)
        return [Weighted(token, part.weight, place, start) for token, start in zip(ids, starts, strict=True)]

    def _tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of ``text`` without start and end, and where each one begins in it."""
        if lone := SURROGATE.search(text):
            raise TokenizerError(f"expected Unicode text, got a lone surrogate at position {lone.start()}")
        encoding = self._backend.encode(text, add_special_tokens=False)
        return expand(encoding.ids, encoding.offsets, self._followers)

    def _window(self, length: int | None) -> int:
        window = self.max_length if length is None else length
        if window < 2:
            raise TokenizerError(f"expected a length of at least 2 (start and end), got {window}")
        return window

    def _framed(self, ids: list[int], window: int) -> tuple[int, ...]:
        framed = [self.bos_id, *ids, self.eos_id]
        return (*framed, *[self.pad_id] * (window - len(framed)))


def _as_written(part: Part) -> str:
    return f" BREAK {part.text}" if part.breaks else part.text


def _with_added(vocabulary: Vocabulary, special: SpecialTokens) -> dict[str, int]:
    """Ids of the vocabulary and of the added tokens, which must follow it without a gap."""
    added = {token.content for token in special.added}
    new = {token: special.ids[token] for token in added & special.ids.keys() - vocabulary.ids.keys()}
    for place, (token, index) in enumerate(sorted(new.items(), key=lambda pair: pair[1])):
        if index != len(vocabulary.ids) + place:
            raise TokenizerError(
                f"expected the added token {token!r} at id {len(vocabulary.ids) + place}, behind the others, "
                f"got {index}"
            )
    return {**vocabulary.ids, **new}


def _with_more(vocabulary: Vocabulary, special: SpecialTokens, more: Sequence[str]) -> SpecialTokens:
    known = _with_added(vocabulary, special)
    taken = next((token for place, token in enumerate(more) if token in known or token in more[:place]), None)
    if taken is not None:
        raise TokenizerError(f"expected a name that is no token yet, got {taken!r}: choose another")
    ids = {token: len(known) + place for place, token in enumerate(more)}
    added = tuple(AddedToken(token, special=False, normalized=True) for token in more)
    return replace(special, added=(*special.added, *added), ids={**special.ids, **ids})


def _id_of(token: str, role: str, ids: Mapping[str, int]) -> int:
    if token not in ids:
        raise TokenizerError(
            f"expected the {role} {token!r} in the vocabulary, got {len(ids)} tokens without it"
        )
    return ids[token]


def _backend(vocabulary: Vocabulary, special: SpecialTokens, ids: Mapping[str, int]) -> Tokenizer:
    """The pipeline of ``transformers.models.clip.tokenization_clip`` on the tokenizers library."""
    with loading():
        from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    try:
        model = models.BPE(
            vocab=dict(vocabulary.ids),
            merges=list(vocabulary.merges),
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
            fuse_unk=False,
            unk_token=special.roles["unk_token"],
        )
    except Exception as error:  # the Rust side raises plain Exception
        raise TokenizerError(f"expected merges of tokens in the vocabulary, got: {error}") from error
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.add_tokens(
        [
            AddedToken(
                token.content,
                special=token.special,
                normalized=token.normalized,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                single_word=token.single_word,
            )
            for token in sorted(special.added, key=lambda token: ids[token.content])
        ]
    )
    return backend
