"""A checkpoint, wherever it comes from: its configs, and weights that stay where they are until asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sd_convert.errors import IncompleteCheckpointError

from .digest import digest
from .sources import Source
from .weights import LazyWeights

if TYPE_CHECKING:
    from sd_bundle import FileHashes

    from .embeddings import Embedding
    from .lora import Lora

Config: TypeAlias = Mapping[str, Any]

INDEX: Final = "model_index.json"
CONFIG_FILES: Final = {
    "model_index": INDEX,
    "text_encoder": "text_encoder/config.json",
    "text_encoder_2": "text_encoder_2/config.json",
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "safety_checker": "safety_checker/config.json",
    "feature_extractor": "feature_extractor/preprocessor_config.json",
    "scheduler": "scheduler/scheduler_config.json",
}


def config_file(folder: str) -> str:
    """Where a checkpoint has the config of a folder, known or not, or ``model_index``."""
    return CONFIG_FILES.get(folder, f"{folder}/config.json")


#: The folder of the tokenizer of each text encoder.
TOKENIZERS: Final = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
TOKENIZER_FILES: Final = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True, slots=True)
class Request:
    """How to open a checkpoint: the arguments of :func:`sd_convert.open_checkpoint` of the same names.

    ``folders`` has the folder of each component that there may be.
    """

    folders: Mapping[str, str]
    components: Collection[str] | None = None
    variant: str | None = None
    revision: str | None = None
    prediction_type: str | None = None
    family: str | None = None
    tokenizer: str | Path | None = None
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    vae: str | Path | None = None

    def chosen(self) -> dict[str, str]:
        """The folders of the components that were asked for, or of all."""
        return {
            component: folder
            for component, folder in self.folders.items()
            if self.components is None or component in self.components
        }


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged into a checkpoint, each beside the name by which it was asked for.

    That is the path on the hub, or the name of a file or folder; never a path of this machine. ``vae`` is
    another VAE in place of the checkpoint's own; ``networks`` are those from elsewhere, by their folder.
    """

    loras: tuple[tuple[str, Lora], ...] = ()
    embeddings: tuple[tuple[str, Embedding], ...] = ()
    vae: tuple[str, Source] | None = None
    networks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a conversion reads.

    ``name`` is the hub id, or the folder's or file's name, ``revision`` the hub's commit, ``folder`` the
    folder or file itself. ``networks`` has the folder of each component that was asked for.
    ``configs`` is by folder (``text_encoder``, ``unet``, ``vae``, ``scheduler``, ...) and ``model_index``,
    and has those that exist. ``tokenizers`` has the files of ``tokenizer`` and ``tokenizer_2``, as far as
    there are any.
    ``sources`` and ``variants`` are by folder, for the folders of the components only. ``made_files`` are
    those that are not on disk, by their path in a checkpoint; they take the place of what is on disk under
    the same path. ``merged`` is what ``sources`` have beside the checkpoint's own weights. ``notes`` are what
    was assumed and the user should know.
    """

    name: str
    folder: Path
    revision: str | None
    networks: Mapping[str, str]
    configs: Mapping[str, Config]
    tokenizers: Mapping[str, tuple[Path, ...]]
    scheduler_file: Path | None
    sources: Mapping[str, Source]
    variants: Mapping[str, str]
    made_files: Mapping[str, bytes] = field(default_factory=dict)
    merged: Merged = field(default_factory=Merged)
    notes: tuple[str, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """The components that were asked for, in the usual order."""
        return tuple(self.networks)

    def config(self, folder: str) -> Config:
        """The config of a folder (``unet``, ``scheduler``, ...), or ``model_index``.

        Raises:
            IncompleteCheckpointError: the checkpoint has none.
        """
        if folder not in self.configs:
            raise IncompleteCheckpointError(
                f"{self.folder}: expected {config_file(folder)}, got none; download the checkpoint again"
            )
        return self.configs[folder]

    def weights(self, component: str) -> LazyWeights:
        """The tensors of the component's network (both VAE components share one).

        Raises:
            IncompleteCheckpointError: the component was not asked for, or a file is truncated.
            CheckpointError: a file is malformed.
        """
        if self.networks.get(component) not in self.sources:
            raise IncompleteCheckpointError(
                f"{self.name}: expected the weights of {component}, got {', '.join(self.components)} opened"
            )
        return self.sources[self.networks[component]].open()

    def digest(self, component: str, hash_file: FileHashes | None = None) -> str:
        """What the component's weights are, as one number, see :mod:`sd_convert.checkpoint.digest`.

        Errors as ``weights``.
        """
        return digest(self.weights(component), hash_file)
