"""Textual inversions that are read when a bundle is opened, beside those that were converted with it.

Source of the files' forms: ``sd_tokenize.vectors_in``, which the converter reads them by, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle
from sd_tokenize import EmbeddingError, check_token, token_names, vectors_in

from sd_runtime.errors import SettingsError

Float: TypeAlias = npt.NDArray[np.float32]

#: No file of vectors is larger; one of a whole model would be read in vain.
LARGEST = 2**26


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Prompts that have ``name`` get its vectors: of each text encoder by its component's name, (n, width).

    ``sha256`` is that of the file.
    """

    name: str
    sha256: str
    vectors: Mapping[str, Float]

    def tokens(self, encoder: str) -> list[str]:
        """The tokens of its vectors for one text encoder, in their order."""
        return token_names(self.name, len(self.vectors[encoder]))


def read_embeddings(files: Mapping[str, str | Path], bundle: Bundle) -> tuple[Embedding, ...]:
    """The embedding in each of ``files``, by the name that prompts have, for the text encoders of ``bundle``.

    Raises:
        SettingsError: a name that no prompt can have; or a file that cannot be read, is no safetensors, or
            has no vectors of the encoders' widths.
    """
    return tuple(_read(name, Path(file), bundle) for name, file in files.items())


def _read(name: str, path: Path, bundle: Bundle) -> Embedding:
    from safetensors import SafetensorError, safe_open

    try:
        check_token(name)
        if (size := path.stat().st_size) > LARGEST:
            raise SettingsError(f"{path}: expected an embedding of at most {LARGEST} bytes, got {size}")
        with safe_open(path, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            vectors = {
                encoder: _rows(file.get_tensor(vectors_in(shapes, encoder, width, where=path)), path)
                for encoder, width in _widths(bundle).items()
            }
    except EmbeddingError as error:
        raise SettingsError(str(error)) from None
    except OSError as error:
        raise SettingsError(f"{path}: expected an embedding, got {error.strerror or error}") from None
    except (SafetensorError, TypeError) as error:  # TypeError: of dtypes that numpy lacks
        raise SettingsError(
            f"{path}: expected an embedding in safetensors of float16 or float32, got {error}; a .pt or .bin "
            "holds code, and has to be saved as safetensors first"
        ) from None
    return Embedding(name, hashlib.sha256(path.read_bytes()).hexdigest(), vectors)


def _rows(tensor: npt.NDArray[np.generic], path: Path) -> Float:
    rows = np.atleast_2d(tensor)
    if rows.dtype.kind != "f" or not np.isfinite(rows).all():
        raise SettingsError(
            f"{path}: expected vectors of finite floats, got {rows.dtype} or NaN and infinity"
        )
    return rows.astype(np.float32)


def _widths(bundle: Bundle) -> dict[str, int]:
    """Of the hidden states of each text encoder, by its component's name."""
    widths = {}
    for encoding in bundle.manifest.model.text_encoders:
        outputs = {port.name: port.shape for port in bundle.component(encoding.component).outputs}
        widths[encoding.component] = outputs[encoding.hidden_states][-1]
    return widths
