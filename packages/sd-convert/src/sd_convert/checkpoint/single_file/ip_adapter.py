"""An IP-Adapter in one ``.safetensors`` file: the projection of an image, and in each attention its tokens'.

Source: the layout of tencent-ailab/IP-Adapter (``ip_adapter/resampler.py``), and
``_convert_ip_adapter_image_proj_to_diffusers`` in diffusers' loaders/unet.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sd_convert.checkpoint.checkpoint import Config
from sd_convert.checkpoint.tensors import LazyTensor, TensorEntry
from sd_convert.checkpoint.weights import LazyWeights, open_weights
from sd_convert.errors import NotACheckpointError, UnsupportedArchitectureError

from .renaming import rename

PROJECTION: Final = "image_proj."
ATTENTIONS: Final = "ip_adapter."

#: diffusers' classes, and the tensor that only such a file has.
_PLAIN: Final = "ImageProjection"
_FULL: Final = "IPAdapterFullImageProjection"
_PLUS: Final = "IPAdapterPlusImageProjection"
_MARKS: Final = {_PLAIN: "proj.weight", _FULL: "proj.3.weight", _PLUS: "latents"}

#: What only others have, and what they are called.
_OTHERS: Final = {
    "perceiver_resampler.proj_in.weight": "an IP-Adapter FaceID Plus, which looks at faces with insightface",
    "norm.weight": "an IP-Adapter FaceID, which looks at faces with insightface",
}
_PLAIN_TABLE: Final = {"proj": "image_embeds", "norm": "norm"}
_FULL_TABLE: Final = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
_LAYER_TABLE: Final = {
    "0.norm1": "ln0",
    "0.norm2": "ln1",
    "0.to_q": "attn.to_q",
    "0.to_out": "attn.to_out.0",
    "1.0": "ff.0",
    "1.1": "ff.1.net.0.proj",
    "1.3": "ff.1.net.2",
}
_LAYER: Final = re.compile(r"layers\.(\d+)\.(.+)")
_PAIRED: Final = "0.to_kv.weight"  # keys, then values
_HEAD: Final = 64  # channels, in every resampler


@dataclass(frozen=True, slots=True)
class IPAdapterFile:
    """Part of the tensors of an IP-Adapter's file, without their ``prefix``.

    Those of the projection are called as in diffusers' classes.
    """

    file: Path
    prefix: str

    @property
    def files(self) -> tuple[Path, ...]:
        """That one file."""
        return (self.file,)

    def open(self) -> LazyWeights:
        """Map the file and rename, see :class:`sd_convert.checkpoint.sources.Source`."""
        entries = _below(open_weights([self.file]).entries, self.prefix)
        return LazyWeights(dict(_renamed(entries)) if self.prefix == PROJECTION else entries)


def read_ip_adapter_file(file: Path, _: Config) -> tuple[Config, IPAdapterFile]:
    """Config and weights of the image projection in ``file``.

    The config: ``_class_name`` of diffusers' class; ``width`` of the image embedding or hidden states that it
    takes, ``text_width`` of the tokens that it gives, and their number ``tokens``, but for the kind that
    gives as many as it takes; of a resampler its ``hidden_width``, ``depth``, ``heads`` and ``ff_width``.

    Raises:
        NotACheckpointError: there is no IP-Adapter in it.
        UnsupportedArchitectureError: it is of another kind.
    """
    entries = open_weights([file]).entries
    projection, attentions = _below(entries, PROJECTION), _below(entries, ATTENTIONS)
    if not projection or not attentions:
        raise NotACheckpointError(
            f"{file}: expected an IP-Adapter ({PROJECTION}* and {ATTENTIONS}*), got "
            f"{', '.join(list(entries)[:3]) or 'no tensors'}"
        )
    kind = next((kind for kind, mark in _MARKS.items() if mark in projection), None)
    found = next((what for mark, what in _OTHERS.items() if mark in projection), "one of another kind")
    if kind is None:
        raise UnsupportedArchitectureError(
            f"{file}: expected an IP-Adapter, plain, plus or full, got {found}, which is not converted"
        )
    shapes = {name: entry.shape for name, entry in projection.items()}
    try:
        return {"_class_name": kind, **_DIMENSIONS[kind](shapes)}, IPAdapterFile(file, PROJECTION)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedArchitectureError(
            f"{file}: expected the tensors of an {kind}, got others: {error}"
        ) from error


def _plain(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    rows, width = shapes["proj.weight"]
    (text_width,) = shapes["norm.weight"]
    return {"width": width, "text_width": text_width, "tokens": rows // text_width}


def _full(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    (text_width,) = shapes["proj.3.weight"]
    _, width = shapes["proj.0.weight"]
    return {"width": width, "text_width": text_width}


def _plus(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    _, tokens, hidden_width = shapes["latents"]
    text_width, _ = shapes["proj_out.weight"]
    _, width = shapes["proj_in.weight"]
    queries, _ = shapes["layers.0.0.to_q.weight"]
    ff_width, _ = shapes["layers.0.1.1.weight"]
    layers = {int(match[1]) for name in shapes if (match := _LAYER.match(name))}
    return {
        "width": width,
        "text_width": text_width,
        "tokens": tokens,
        "hidden_width": hidden_width,
        "depth": len(layers),
        "heads": queries // _HEAD,
        "ff_width": ff_width,
    }


_DIMENSIONS: Final = {_PLAIN: _plain, _FULL: _full, _PLUS: _plus}


def _below(entries: Mapping[str, TensorEntry], prefix: str) -> dict[str, TensorEntry]:
    return {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}


def _renamed(entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, LazyTensor]]:
    """diffusers' names; what has none keeps its own, and is missed later by name."""
    table = _PLAIN_TABLE if _MARKS[_PLAIN] in entries else _FULL_TABLE if _MARKS[_FULL] in entries else {}
    for name, entry in entries.items():
        layer = _LAYER.match(name)
        if layer and layer[2] == _PAIRED and entry.shape[0] % 2 == 0:
            for index, projection in enumerate(("to_k", "to_v")):
                yield f"layers.{layer[1]}.attn.{projection}.weight", entry.part(index, 2)
        elif layer:
            yield f"layers.{layer[1]}.{rename(layer[2], _LAYER_TABLE) or layer[2]}", entry
        else:
            yield rename(name, table) or name, entry
