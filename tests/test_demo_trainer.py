"""The trainer's own machinery: resuming, the tokenizer it writes, the pictures it draws."""

import numpy as np
import pytest
import torch
from demo_checkpoint.pictures import draw
from demo_checkpoint.tokenizer import WORDS, write_tokenizer
from demo_checkpoint.train import crop, phrasings, run_stage
from sd_tokenize import ClipTokenizer
from sdc.demo.captions import COLOURS, every_caption, seen_captions, unseen_captions
from sdc.demo.judge import judge
from sdc.demo.shapes import SIZE
from torch import nn


def stage(folder, steps):
    torch.manual_seed(0)
    modules = nn.ModuleDict({"layer": nn.Linear(3, 3)})
    return run_stage(
        "toy",
        folder,
        modules,
        lambda _step: modules["layer"](torch.randn(4, 3)).square().mean(),
        steps=steps,
        rate=1e-2,
        save=2,
    )


def test_a_resumed_stage_is_the_uninterrupted_one(tmp_path, monkeypatch, capsys):
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole = stage(tmp_path / "whole", 6)
    replace = type(tmp_path).replace
    saved = []

    def stop_after_the_second_save(self, target):
        replace(self, target)
        saved.append(target)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(tmp_path), "replace", stop_after_the_second_save)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "halves", 6)
    monkeypatch.undo()
    resumed = stage(tmp_path / "halves", 6)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_words_of_the_captions_are_one_token_each(tmp_path):
    write_tokenizer(tmp_path)
    tokenizer = ClipTokenizer.from_folder(tmp_path)
    for word in WORDS:
        ids = tokenizer.encode(word).ids
        assert ids[0] == tokenizer.bos_id
        assert ids[2] == tokenizer.eos_id


def test_no_phrasing_of_an_unseen_caption_is_trained():
    shown = {phrase for caption in seen_captions() for phrase in phrasings(caption)}
    assert not shown & {phrase for caption in unseen_captions() for phrase in phrasings(caption)}


def test_training_pictures_show_their_captions():
    rng = np.random.default_rng(0)
    from PIL import Image

    for caption in every_caption():
        drawn = draw(caption.shape, COLOURS[caption.colour], COLOURS[caption.background], rng)
        verdict = judge(Image.fromarray(drawn))
        assert (verdict.colour, verdict.shape, verdict.background) == (
            caption.colour,
            caption.shape,
            caption.background,
        )


def test_crops_are_squares_of_the_pictures():
    pictures = torch.arange(2 * 3 * SIZE * SIZE, dtype=torch.float32).view(2, 3, SIZE, SIZE)
    cut = crop(pictures, np.random.default_rng(0), 64)
    assert cut.shape == (2, 3, 64, 64)
    assert torch.equal(cut[:, :, 1] - cut[:, :, 0], torch.full((2, 3, 64), float(SIZE)))
