"""Texts inside pictures: chunks of a PNG, or EXIF of a JPEG and a WebP, where web UIs look for them.

Source: AUTOMATIC1111's web UI, modules/images.py (``save_image_with_geninfo``, ``read_info_from_image``).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sd_bundle.drafts import replacing

from sd_runtime.errors import ImageTextError
from sd_runtime.user_image import READING

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

PARAMETERS: Final = "parameters"
SDC: Final = "sdc"

#: Of EXIF 2.32: the sub-IFD, a text for people, and what a maker's own programs read.
_EXIF, _USER_COMMENT, _MAKER_NOTE = 0x8769, 0x9286, 0x927C
#: Character codes of a UserComment, 8 bytes in front of it.
_UNICODE, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"
_OURS = b"sdc\0"

#: What a suffix stands for, and how Pillow writes it: JPEG with a loss that is not seen, WebP without any.
FORMATS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}


@dataclass(frozen=True, slots=True)
class PictureTexts:
    """``parameters`` as web UIs write them, and ``sdc``, our JSON; None for what is not there."""

    parameters: str | None = None
    sdc: str | None = None


def format_of(path: Path) -> str:
    """``PNG``, ``JPEG`` or ``WEBP``, by the suffix of ``path``.

    Raises:
        ImageTextError: another suffix.
    """
    return _format(path)[0]


def save_with_texts(image: Image, path: Path, texts: PictureTexts) -> None:
    """Write ``image`` with ``texts`` inside, whole or not at all, in the format of the suffix.

    Raises:
        ImageTextError: a suffix of no format that can hold them, or more text than the format has room for.
        OSError: the file cannot be written.
    """
    name, options = _format(path)
    own = {"pnginfo": _chunks(texts)} if name == "PNG" else {"exif": _checked_exif(path, name, texts)}
    with replacing(path) as draft:
        image.save(draft, format=name, **options, **own)


def read_texts(picture: str | Path | BinaryIO) -> PictureTexts:
    """The texts inside a PNG, JPEG or WebP.

    Raises:
        ImageTextError: none of these, or a damaged one.
    """
    from PIL import Image

    name = picture if isinstance(picture, str | Path) else "the picture"
    try:
        with READING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF is EXIF without what is wanted
            with Image.open(picture, formats=["PNG", "JPEG", "WEBP"]) as image:
                return _of_png(image) if image.format == "PNG" else _of_exif(image.getexif())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # what Pillow raises on files of other kinds, or cut
        raise ImageTextError(f"{name}: expected a PNG, JPEG or WebP, got {error}") from None


def _format(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        choices = ", ".join(FORMATS)
        raise ImageTextError(f"expected a file name that ends in {choices}; got {path.name}") from None


def _chunks(texts: PictureTexts) -> Any:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for key, text in ((PARAMETERS, texts.parameters), (SDC, texts.sdc)):
        if text is not None:
            chunks.add_text(key, text)
    return chunks


def _of_png(image: Image) -> PictureTexts:
    chunks: dict[str, Any] = getattr(image, "text", {})
    return PictureTexts(*(None if key not in chunks else str(chunks[key]) for key in (PARAMETERS, SDC)))


def _checked_exif(path: Path, name: str, texts: PictureTexts) -> bytes:
    content = _exif_of(texts).tobytes()
    if name == "JPEG" and len(content) > 65533:  # a segment's length is 16 bits, of itself too
        raise ImageTextError(
            f"{path.name}: expected settings of at most 65533 bytes in a JPEG, got {len(content)}; "
            "write a PNG or WebP"
        )
    return content


def _exif_of(texts: PictureTexts) -> Exif:
    from PIL import Image

    exif = Image.Exif()
    own = exif.get_ifd(_EXIF)
    if texts.parameters is not None:  # big-endian, as piexif writes and web UIs read it
        own[_USER_COMMENT] = _UNICODE + texts.parameters.encode("utf-16-be", "surrogatepass")
    if texts.sdc is not None:
        own[_MAKER_NOTE] = _OURS + texts.sdc.encode()
    return exif


def _of_exif(exif: Exif) -> PictureTexts:
    own = exif.get_ifd(_EXIF)
    comment, note = own.get(_USER_COMMENT), own.get(_MAKER_NOTE)
    ours = note[len(_OURS) :] if isinstance(note, bytes) and note.startswith(_OURS) else None
    return PictureTexts(_of_comment(comment), None if ours is None else ours.decode("utf-8", "replace"))


def _of_comment(comment: object) -> str | None:
    if isinstance(comment, str):
        return comment
    if not isinstance(comment, bytes):
        return None
    code, text = comment[:8], comment[8:]
    if code == _UNICODE:
        return text.decode("utf-16-be", "replace")
    return text.decode("utf-8", "replace") if code == _ASCII else None
