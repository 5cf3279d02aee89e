"""A package but for its weights: what is left to do is to read tensors and write them in order.

Drawing a blueprint takes torch, coremltools and nearly all of a conversion's work; it is half a megabyte. It
follows from configs, shapes and options alone, except for the few small tensors that were read for it, which
it names (``inlined``). So it can be kept (:mod:`sd_convert.cache`), and used for any weights in which those
are the same: weights themselves are never kept, hence never stale.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from .blobs import Blob, Tensors, end_of, renamed
from .component import PortSpec

_LARGEST: Final = 2**30  # bytes of an unpacked blueprint; those of SDXL have some ten millions


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a component's package will be.

    ``inputs`` and ``outputs`` are its ports. ``model`` is the content of ``model.mlmodel``, ``blobs`` those
    of ``weight.bin`` in order, ``operations`` counts every kind of MIL operation but const. ``inlined`` has
    the sha256 of each tensor whose elements are in ``model`` or in a blob's content.
    """

    name: str
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    model: bytes
    blobs: tuple[Blob, ...]
    inlined: Mapping[str, str]
    operations: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Size of the two large files of the package."""
        return len(self.model) + (end_of(self.blobs[-1]) if self.blobs else 0)

    def fits(self, tensors: Tensors) -> bool:
        """Whether the tensors that were read for it are the same in ``tensors``."""
        return all(tensor_hash(tensors, name) == sha for name, sha in self.inlined.items())

    def renamed(self, names: Mapping[str, str]) -> Blueprint:
        """The same package from tensors with other names."""
        inlined = {names[name]: sha for name, sha in self.inlined.items()}
        return replace(self, blobs=renamed(self.blobs, names), inlined=inlined)


def tensor_hash(tensors: Tensors, name: str) -> str:
    """The sha256 of a tensor's dtype, shape and elements."""
    array = tensors[name]
    sha = hashlib.sha256(f"{array.dtype.name}{array.shape}".encode())
    sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def pack(blueprint: Blueprint) -> bytes:
    """The blueprint as bytes; :func:`unpack` is the inverse."""
    document = asdict(blueprint)
    text = json.dumps(document, default=lambda content: {"base64": base64.b64encode(content).decode()})
    return zlib.compress(text.encode(), level=1)


def unpack(content: bytes) -> Blueprint:
    """The blueprint that was packed.

    Raises:
        ValueError: something else was.
    """
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(content, _LARGEST)
        fields = json.loads(text, object_hook=_binary)
        blobs = tuple(Blob(**blob) for blob in fields.pop("blobs"))
        inputs, outputs = (tuple(map(_port, fields.pop(key))) for key in ("inputs", "outputs"))
        return Blueprint(**fields, inputs=inputs, outputs=outputs, blobs=blobs)
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"expected a packed blueprint, got {error}") from error


def _port(fields: dict[str, Any]) -> PortSpec:
    return PortSpec(**{**fields, "shape": tuple(fields["shape"])})


def _binary(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"], validate=True) if value.keys() == {"base64"} else value
