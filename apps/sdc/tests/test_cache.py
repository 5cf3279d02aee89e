"""``sdc cache`` shows what is there and clears it."""

import numpy as np
from sd_mil import Cache
from sd_mil.storage import Layout


def stored(folder):
    array = np.zeros(100_000, np.uint8)
    Cache(folder, 1 << 30).store(bytes(range(32)), Layout(((array.dtype, array.shape),)), [array])


def test_it_shows_folder_bound_and_entries(sdc, tmp_path, monkeypatch):
    monkeypatch.setenv("SD_MIL_CACHE", str(tmp_path))
    monkeypatch.setenv("SD_MIL_CACHE_BYTES", "2000000")
    assert f"{tmp_path}: 0 B of at most 2.0 MB" in sdc("cache").out
    stored(tmp_path)
    shown = sdc("cache", "show").out
    assert "104.1 kB of at most 2.0 MB" in shown
    assert "0001020304050607" in shown


def test_it_clears(sdc, tmp_path, monkeypatch):
    monkeypatch.setenv("SD_MIL_CACHE", str(tmp_path))
    stored(tmp_path)
    assert "cleared 104.1 kB" in sdc("cache", "clear").out
    assert list(tmp_path.iterdir()) == []


def test_it_says_that_the_cache_is_off(sdc, monkeypatch):
    monkeypatch.setenv("SD_MIL_CACHE", "off")
    assert "off" in sdc("cache").out
