"""What the weights of a bundle were read from, with the sha256 of what was merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from sd_bundle import AddedEmbedding, CustomVae, MergedLora, SourceFile, WeightSources

from .checkpoint import TOKENIZERS, Checkpoint


def weight_sources(
    checkpoint: Checkpoint, components: Iterable[str], hash_file: Callable[[Path], str]
) -> WeightSources:
    """The files behind ``components``: of the checkpoint by name and size, of the rest also by sha256.

    The checkpoint's own, of many gigabytes, are not read for it; what was merged and networks from elsewhere
    are. A LoRA, an embedding or a VAE is named only if one of ``components`` has it.
    """
    names, merged = tuple(components), checkpoint.merged
    has_text = any(name in TOKENIZERS for name in names)
    folders = checkpoint.networks
    own = [name for name in names if merged.vae is None or folders[name] != "vae"]
    return WeightSources(
        files={name: _files(checkpoint, folders[name], hash_file) for name in own},
        loras=tuple(
            MergedLora(
                _hashed(name, lora.file, hash_file),
                float(lora.scale),
                float(lora.scale if lora.text_scale is None else lora.text_scale),
            )
            for name, lora in merged.loras
            if has_text or "unet" in names
        ),
        embeddings=tuple(
            AddedEmbedding(_text(embedding.name), _hashed(name, embedding.file, hash_file))
            for name, embedding in merged.embeddings
            if has_text
        ),
        vae=None if len(own) == len(names) else _custom_vae(checkpoint, hash_file),
    )


def _files(checkpoint: Checkpoint, folder: str, hash_file: Callable[[Path], str]) -> tuple[SourceFile, ...]:
    name = checkpoint.merged.networks.get(folder)
    if name is None:
        return _own_files(checkpoint, folder)
    return tuple(
        _hashed(name if name.endswith(file.name) else f"{name}/{file.name}", file, hash_file)
        for file in checkpoint.sources[folder].files
    )


def _own_files(checkpoint: Checkpoint, folder: str) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(_text(_relative(file, checkpoint.folder)), file.stat().st_size, None)
        for file in checkpoint.sources[folder].files
    )


def _custom_vae(checkpoint: Checkpoint, hash_file: Callable[[Path], str]) -> CustomVae | None:
    if checkpoint.merged.vae is None:
        return None
    name, source = checkpoint.merged.vae
    return CustomVae(_text(name), tuple(_hashed(file.name, file, hash_file) for file in source.files))


def _hashed(name: str, file: Path, hash_file: Callable[[Path], str]) -> SourceFile:
    return SourceFile(_text(name), file.stat().st_size, hash_file(file))


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if folder in file.parents else file.name


def _text(name: str) -> str:
    """``name`` as text that UTF-8 can hold, which a file's name need not be."""
    return name.encode("utf-8", "replace").decode("utf-8")
