"""From what a user names to a checkpoint: a folder, a single file, or either on the hub."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sd_convert.components import KINDS, ComponentKind
from sd_convert.conversion.options import check_components
from sd_convert.errors import CheckpointNotFoundError, NotACheckpointError, OptionsError, UnsafeWeightsError

from .checkpoint import CONFIG_FILES, Checkpoint, Request
from .custom_vae import read_vae_file, with_vae
from .embeddings import Embedding, with_embeddings
from .folder import fetch_folder, read_folder
from .hub import Hub, is_offline, is_repository_id
from .lora import Lora, with_bundled_embeddings, with_loras
from .network_folder import fetch_network, read_network_folder
from .single_file import PREDICTION_TYPES, read_single_file

_SUFFIX = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")

#: What diffusers and PEFT call a LoRA.
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")

#: What diffusers calls an embedding.
EMBEDDING_FILES = ("learned_embeds.safetensors",)

#: Works in any Python with torch and safetensors; ``weights_only`` refuses code, so it is safe by itself.
TO_SAFETENSORS = (
    'python -c "import sys, torch, safetensors.torch as s; '
    "c = torch.load(sys.argv[1], 'cpu', weights_only=True); c = c.get('state_dict', c); "
    "c |= {f'{p}.{k}': v for p, d in list(c.items()) if isinstance(d, dict) for k, v in d.items()}; "
    "s.save_file({k: v.contiguous().clone() for k, v in c.items() "
    "if hasattr(v, 'shape')}, sys.argv[2])\""
)


def open_checkpoint(
    source: str | Path,
    *,
    components: Collection[str] | None = None,
    revision: str | None = None,
    token: str | None = None,
    variant: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    prediction_type: str | None = None,
    family: str | None = None,
    tokenizer: str | Path | None = None,
    loras: Sequence[Lora] = (),
    embeddings: Sequence[Embedding] = (),
    vae: str | Path | None = None,
    kinds: Iterable[ComponentKind] = KINDS,
) -> Checkpoint:
    """Open a diffusers folder, a single ``.safetensors`` file in the original layout, or fetch from the
    hub.

    On the hub ``organisation/name`` is a repository in diffusers format, of which only the needed files
    are fetched, and ``organisation/name/file.safetensors`` a single file.

    ``components``: only these need to be there, and only theirs are fetched; ``None`` is all that the
    checkpoint has. ``variant``: which weights (``"fp16"``; ``""`` for the unnamed ones); ``None`` takes
    fp16, else the unnamed ones, else the only ones; of a single file, ``"ema"`` is the averaged ones.
    ``revision``, ``token``, ``cache_dir`` and ``local_files_only`` are for the hub.
    ``prediction_type``: ``epsilon`` or ``v_prediction``, where the checkpoint does not say it, or
    wrongly.
    ``family`` (``sd1``, ``sd2``, ``sdxl``, ``sdxl-refiner``) and ``tokenizer``, a folder or hub id, are
    for single files, which have no tokenizer; by default it is that of openai/clip-vit-large-patch14.
    ``loras`` are merged in their order while weights are read, and embeddings inside their files become
    tokens, of which ``notes`` speak; ``embeddings`` become tokens of the
    tokenizers and of the text encoders. Their files may be on the hub too.
    ``vae``: a folder, file or hub id whose VAE takes the place of the checkpoint's, both halves of it.
    ``kinds``: of the components that there may be.

    Raises:
        CheckpointError: one of its subclasses, see ``sd_convert.errors``.
        UnsupportedArchitectureError: another kind of pipeline than Stable Diffusion 1, 2 and XL.
        OptionsError: an unknown component, prediction type or family.
    """
    folders = {kind.name: kind.folder for kind in kinds}
    if components is not None:
        check_components(tuple(components), tuple(folders))
    hub = Hub(token, Path(cache_dir) if cache_dir else None, local_files_only or is_offline())
    request = Request(
        folders,
        components,
        variant,
        revision,
        prediction_type,
        family,
        tokenizer,
        tuple(loras),
        tuple(embeddings),
        vae,
    )
    return _with_additions(source, request, hub)


def _with_additions(source: str | Path, request: Request, hub: Hub) -> Checkpoint:
    """The checkpoint, with another VAE, LoRAs and embeddings."""
    if request.prediction_type not in (None, *PREDICTION_TYPES):
        raise OptionsError(
            f"prediction_type: expected one of {', '.join(PREDICTION_TYPES)}, got {request.prediction_type!r}"
        )
    checkpoint = _open(source, request, hub)
    if request.prediction_type is not None:
        checkpoint = _predicting(checkpoint, request.prediction_type)
    if request.vae is not None:
        checkpoint = _with_custom_vae(checkpoint, request, hub)
    loras = [replace(lora, file=find_file(lora.file, hub, LORA_FILES)) for lora in request.loras]
    embeddings = [
        replace(embedding, file=find_file(embedding.file, hub, EMBEDDING_FILES))
        for embedding in request.embeddings
    ]
    merged = replace(
        checkpoint.merged,
        loras=tuple(
            (_name(asked.file, found.file), found) for asked, found in zip(request.loras, loras, strict=True)
        ),
        embeddings=tuple(
            (_name(asked.file, found.file), found)
            for asked, found in zip(request.embeddings, embeddings, strict=True)
        ),
    )
    checkpoint = with_embeddings(with_loras(checkpoint, loras), embeddings)
    checkpoint = with_bundled_embeddings(checkpoint, [lora.file for lora in loras], embeddings)
    return replace(checkpoint, merged=merged)


def _name(source: str | Path, file: Path) -> str:
    """What ``file``, found for ``source``, is called: its path on the hub, or its own name."""
    if Path(source).expanduser().exists():
        return file.name
    return str(source) if split_hub_file(str(source)) else f"{source}/{file.name}"


def _open(source: str | Path, request: Request, hub: Hub) -> Checkpoint:
    path = Path(source).expanduser()
    if path.is_dir():
        name = path.resolve().name
        return read_folder(path, name, request)
    if path.is_file():
        check_suffix(path)
        return read_single_file(path, path.stem, request, hub)
    if isinstance(source, str) and is_repository_id(source):
        repository = hub.repository(source, request.revision)
        root = fetch_folder(repository, request)
        return read_folder(root, repository.name, request, revision=root.name)
    if isinstance(source, str) and (place := split_hub_file(source)):
        root = hub.repository(place[0], request.revision).fetch([place[1]])
        return read_single_file(root / place[1], Path(place[1]).stem, request, hub, revision=root.name)
    raise CheckpointNotFoundError(
        f"{source}: expected a checkpoint folder, a {_SUFFIX} file or a hub id (organisation/name), "
        "got nothing there"
    )


def _with_custom_vae(checkpoint: Checkpoint, request: Request, hub: Hub) -> Checkpoint:
    source = request.vae or ""
    path = Path(source).expanduser()
    if path.is_dir():
        found = read_network_folder(path, "vae", what="a VAE")
    elif not path.exists() and is_repository_id(str(source)):
        found = read_network_folder(fetch_network(hub.repository(str(source)), "vae"), "vae", what="a VAE")
    else:
        found = read_vae_file(find_file(source, hub, ()), checkpoint.configs.get("vae"))
    config, weights, variant = found
    name = path.resolve().name if path.exists() else str(source)
    checkpoint = replace(checkpoint, merged=replace(checkpoint.merged, vae=(name, weights)))
    return with_vae(checkpoint, config, weights, request, variant=variant)


def split_hub_file(source: str) -> tuple[str, str] | None:
    """``organisation/name/path/of.safetensors`` as the repository and the path in it.

    None for other forms.
    """
    organisation, _, rest = source.partition("/")
    name, _, path = rest.partition("/")
    parts = path.split("/")
    if (
        not path.endswith(_SUFFIX)
        or not all(part.strip(".") for part in parts)
        or any("*" in p for p in parts)
    ):
        return None
    return (f"{organisation}/{name}", path) if is_repository_id(f"{organisation}/{name}") else None


def find_file(source: str | Path, hub: Hub, names: tuple[str, ...]) -> Path:
    """A weights file: itself, the one called one of ``names`` in a folder or repository, or one on the hub.

    Raises:
        CheckpointNotFoundError: there is none.
        UnsafeWeightsError, NotACheckpointError: it is no ``.safetensors``.
    """
    path = Path(source).expanduser()
    if path.is_file():
        check_suffix(path)
        return path
    if not path.is_dir() and (place := split_hub_file(str(source))):
        return hub.repository(place[0]).fetch([place[1]]) / place[1]
    if not path.is_dir() and is_repository_id(str(source)):
        path = hub.repository(str(source)).fetch(names)
    for name in names:
        if (path / name).is_file():
            return path / name
    folder = f", or a folder with {names[0]}" if names else ", a folder or a hub id"
    raise CheckpointNotFoundError(f"{source}: expected a {_SUFFIX} file{folder}, got nothing there")


def check_suffix(path: Path) -> None:
    """Refuse a file that is no ``.safetensors``.

    Raises:
        UnsafeWeightsError: it is a pickle; the message has the command that converts it.
        NotACheckpointError: it is something else.
    """
    if path.suffix.lower() in _PICKLES:
        raise UnsafeWeightsError(
            f"{path}: expected a {_SUFFIX} file, got a pickle, which can run code when it is read; convert "
            f"it where nothing can be lost: {TO_SAFETENSORS} {path.name} {path.stem}{_SUFFIX}"
        )
    if path.suffix.lower() != _SUFFIX:
        raise NotACheckpointError(
            f"{path}: expected a checkpoint folder or a {_SUFFIX} file, got another file"
        )


def _predicting(checkpoint: Checkpoint, prediction_type: str) -> Checkpoint:
    """The checkpoint with another prediction type in its scheduler's config."""
    config = {**checkpoint.config("scheduler"), "prediction_type": prediction_type}
    content = (json.dumps(config, indent=2) + "\n").encode()
    return replace(
        checkpoint,
        configs={**checkpoint.configs, "scheduler": config},
        made_files={**checkpoint.made_files, CONFIG_FILES["scheduler"]: content},
    )
