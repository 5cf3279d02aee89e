"""Files of textual inversion: which tensor has a text encoder's vectors, and what their tokens are called.

Forms: one tensor under any name (``emb_params`` and ``string_to_param.*`` of A1111, ``<token>`` of
diffusers), and for SDXL one for each encoder (``clip_l``, ``clip_g``). Names and shapes are enough; nothing
here reads a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sd_tokenize.errors import TokenizerError

#: By the component of a text encoder, what files for SDXL call its vectors.
_KEYS: Final = {
    "text_encoder": ("clip_l", "text_encoders_0"),
    "text_encoder_2": ("clip_g", "text_encoders_1"),
}
_BASES: Final = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL's second encoder"}
#: How A1111's own files begin the names of vectors; its other tensors are about training.
_VECTORS: Final = "string_to_param."


class EmbeddingError(TokenizerError):
    """A file that is no textual inversion for this text encoder."""


def token_names(token: str, count: int) -> list[str]:
    """The names that diffusers gives to several vectors.

    Example:
        >>> token_names("style", 3)
        ['style', 'style_1', 'style_2']
    """
    return [token, *(f"{token}_{index}" for index in range(1, count))]


def check_token(token: str) -> None:
    """Refuse names that no prompt can have.

    Raises:
        EmbeddingError: an empty one, or one with spaces.
    """
    if not token or any(character.isspace() for character in token):
        raise EmbeddingError(f"embedding: expected a name without spaces, got {token!r}")


def vectors_in(shapes: Mapping[str, tuple[int, ...]], encoder: str, width: int, *, where: object) -> str:
    """The name of the tensor (width,) or (number, width) for ``encoder``, of those of the file ``where``.

    Raises:
        EmbeddingError: there is none, or it is of another width.
    """
    shapes = {name: shape for name, shape in shapes.items() if name.startswith(_VECTORS)} or shapes
    name = _named(shapes, encoder)
    if name is None:
        raise EmbeddingError(
            f"{where}: expected vectors for {encoder} ({_KEYS[encoder][0]}, or one tensor alone), "
            f"got {', '.join(list(shapes)[:4])}"
        )
    shape = shapes[name]
    if len(shape) not in (1, 2) or shape[-1] != width or 0 in shape:
        base = _BASES.get(shape[-1] if shape else 0, "another model")
        raise EmbeddingError(
            f"{where}: expected vectors of {width} numbers for {encoder}, got {list(shape)}: "
            f"the embedding is for {base}"
        )
    return name


def _named(names: Iterable[str], encoder: str) -> str | None:
    names = list(names)
    own = [key for key in _KEYS[encoder] if key in names]
    if own:
        return own[0]
    others = [key for keys in _KEYS.values() for key in keys if key in names]
    return names[0] if len(names) == 1 and not others else None
