"""Text encoders changed as they load: with more tokens, and read out before their last layers.

The program of the package is rewritten (``sd_mil.rewriting``); the bundle stays as it is. Core ML loads
files, so for it the rewritten package is written into the user's cache folder, once.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sd_bundle import Bundle, BundleComponent, TextEncoding
from sd_tokenize import ClipTokenizer, TokenizerError

from sd_runtime.conditioning.embeddings import Embedding
from sd_runtime.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sd_mil import Package
    from sd_mil.engines import Engine


@dataclass(frozen=True, slots=True)
class TextChanges:
    """``embeddings`` to add, and the layer to read: ``clip_skip`` 1 is the usual one, 2 the one before, ...

    As the web UI counts, for both prompts; diffusers' ``clip_skip`` is one less, and of the prompt alone.
    """

    embeddings: tuple[Embedding, ...] = ()
    clip_skip: int = 1

    def __post_init__(self) -> None:
        """Refuse a layer that there is not."""
        if type(self.clip_skip) is not int or self.clip_skip < 1:
            raise SettingsError(f"expected a clip_skip of at least 1, the last layer, got {self.clip_skip!r}")

    def tokens(self, component: str) -> list[str]:
        """Those that are added to the tokenizer of a text encoder."""
        return [token for each in self.embeddings for token in each.tokens(component)]

    def tokenizer(self, bundle: Bundle, encoding: TextEncoding) -> ClipTokenizer:
        """That of a text encoder, with the tokens of the embeddings.

        Raises:
            SettingsError: one of them is a token already.
        """
        with bundle.unchanged(encoding.tokenizer):
            folder = bundle.path / encoding.tokenizer
            plain = ClipTokenizer.from_folder(folder)
            if not self.embeddings:
                return plain
            try:
                return ClipTokenizer.from_folder(folder, more=self.tokens(encoding.component))
            except TokenizerError as error:
                raise SettingsError(f"embedding: {error}") from None

    def preparing(
        self, component: BundleComponent, bundle: Bundle, engine: Engine
    ) -> Callable[[Package], Package] | None:
        """What makes of the package of ``component`` what is loaded in its place; None for as it is."""
        encodings = {each.component: each for each in bundle.manifest.model.text_encoders}
        if component.name not in encodings or self == TextChanges():
            return None
        return partial(self._prepared, bundle=bundle, encoding=encodings[component.name], engine=engine)

    def _prepared(
        self, package: Package, *, bundle: Bundle, encoding: TextEncoding, engine: Engine
    ) -> Package:
        from sd_mil import UnsupportedModelError
        from sd_mil.engines import ModelEngine
        from sd_mil.rewriting import with_rows, without_last_layers

        program = package.program
        try:
            program = without_last_layers(program, self.clip_skip - 1, output=encoding.hidden_states)
            if self.embeddings:
                rows = np.concatenate([each.vectors[encoding.component] for each in self.embeddings])
                tokenizer = self.tokenizer(bundle, encoding)
                program = with_rows(program, rows, first=tokenizer.size - len(rows))
        except UnsupportedModelError as error:
            raise SettingsError(f"{encoding.component}: expected one that can be changed: {error}") from None
        changed = replace(package, program=program)
        return _written(changed, self._key(bundle, encoding)) if isinstance(engine, ModelEngine) else changed

    def _key(self, bundle: Bundle, encoding: TextEncoding) -> str:
        """The digest of the files and of what is done to them."""
        folders = (f"{bundle.component(encoding.component).package}/", f"{encoding.tokenizer}/")
        files = bundle.manifest.files
        said = {
            "files": {path: record.sha256 for path, record in files.items() if path.startswith(folders)},
            "clip_skip": self.clip_skip,
            "output": encoding.hidden_states,
            "embeddings": [each.sha256 for each in self.embeddings],
            "form": 1,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def changed_folder() -> Path:
    """Where rewritten packages are kept for Core ML."""
    import platformdirs

    return platformdirs.user_cache_path("sdc", appauthor=False) / "changed"


def _written(package: Package, key: str) -> Package:
    """``package`` as a file: that of an earlier time, or a new one."""
    from sd_mil import read_package, write_package

    path = changed_folder() / f"{key}.mlpackage"
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process was first
            write_package(
                path,
                package.program,
                package.descriptions or package.description,
                version=package.specification_version,
                identity=key,
            )
    return read_package(path)
