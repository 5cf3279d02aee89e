"""What is loaded in the place of a text encoder, and for Core ML written where it can be loaded from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_mil import read_package
from sd_runtime import Bundle, Pipeline, SettingsError
from sd_runtime.conditioning.embeddings import Embedding
from sd_runtime.conditioning.text_changes import TextChanges, changed_folder

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference" / "reference-packages"
PACKAGE = "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder.mlpackage"


class LoadsFiles:
    """An engine that loads files, as Core ML does."""

    name = "files"

    def open(self, *_: Any) -> Any:
        raise AssertionError


def test_nothing_to_change_is_nothing_to_do(toy_bundle: Callable[..., Bundle]) -> None:
    bundle: Any = toy_bundle()
    engine: Any = LoadsFiles()
    changes = TextChanges(clip_skip=2)
    assert TextChanges().preparing(bundle.only("text_encoder"), bundle, engine) is None
    assert changes.preparing(bundle.only("denoiser"), bundle, engine) is None
    assert changes.preparing(bundle.only("text_encoder"), bundle, engine) is not None


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference packages")
def test_for_core_ml_it_is_written_once(toy_bundle: Callable[..., Bundle], monkeypatch: Any) -> None:
    bundle, package = toy_bundle(), read_package(REFERENCE / PACKAGE)
    vectors = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    written = []
    for skip in (2, 2, 1):
        changes = TextChanges((Embedding("zz", "ab", {"text_encoder": vectors}),), skip)
        prepare = changes.preparing(bundle.only("text_encoder"), bundle, LoadsFiles())  # type: ignore[arg-type]
        assert prepare is not None
        made = prepare(package)
        assert Path(made.path).parent == changed_folder()
        assert made.description == package.description
        written.append((made.path, Path(made.path).stat().st_mtime_ns))
    assert written[0] == written[1]
    assert written[0][0] != written[2][0]
    assert len(list(changed_folder().iterdir())) == 2


def test_tokens_of_the_prompt(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> None:
    bundle = toy_bundle()
    vectors = {"text_encoder": np.zeros((2, 6), np.float32)}
    changes = TextChanges((Embedding("zz", "ab", vectors),))
    tokenizer = changes.tokenizer(bundle, bundle.manifest.model.text_encoders[0])
    plain = TextChanges().tokenizer(bundle, bundle.manifest.model.text_encoders[0])
    assert tokenizer.size == plain.size + 2
    assert tokenizer.encode("a zz b").ids[2:4] == (plain.size, plain.size + 1)
    taken = TextChanges((Embedding("a", "ab", vectors),))
    with pytest.raises(SettingsError, match="no token yet, got 'a'"):
        taken.tokenizer(bundle, bundle.manifest.model.text_encoders[0])
    pipeline = Pipeline(bundle, toy_networks.open, text=changes)
    assert pipeline.settings("a", clip_skip=1).clip_skip is None
    with pytest.raises(SettingsError, match="opened with clip_skip 2, got 1"):
        pipeline.settings("a", clip_skip=2)
    with pytest.raises(SettingsError, match="clip_skip of at least 1"):
        TextChanges(clip_skip=0)
