"""What ``sdc convert --for`` writes beside a bundle takes the place of its own kind only."""

import shutil

import click
import pytest
from sd_bundle.drafts import put_in_place
from sdc import devices


def test_resources_of_an_earlier_run_are_replaced(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "bundle")
    for _ in range(2):
        delivered = devices.deliver(tmp_path / "bundle", "mac")
        assert (delivered.folder / "Unet.mlmodelc").is_dir()
        (delivered.folder / "mine.txt").touch()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle-Resources"]
    delivered = devices.deliver(tmp_path / "bundle", "mac")
    assert not (delivered.folder / "mine.txt").exists()


def test_what_was_there_comes_back_when_the_new_one_cannot_be_put_there(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").touch()
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "never made", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "kept"]


def test_another_folder_is_never_replaced(tmp_path):
    devices.check_free(tmp_path / "new", overwrite=False)
    (tmp_path / "notes").mkdir()
    with pytest.raises(click.UsageError, match="exists"):
        devices.check_free(tmp_path / "notes", overwrite=False)
    with pytest.raises(click.UsageError, match="no compiled models"):
        devices.check_free(tmp_path / "notes", overwrite=True)
    (tmp_path / "notes" / "Unet.mlmodelc").mkdir()
    devices.check_free(tmp_path / "notes", overwrite=True)
