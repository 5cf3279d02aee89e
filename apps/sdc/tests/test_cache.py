"""``sdc cache`` shows what both caches hold and clears them."""

import numpy as np
import pytest
from sd_convert import ConversionCache
from sd_mil import Cache
from sd_mil.storage import Layout


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("SD_MIL_CACHE", str(tmp_path / "decoded"))
    monkeypatch.setenv("SD_MIL_CACHE_BYTES", "2000000")
    return tmp_path


def test_it_shows_folders_bounds_and_entries(sdc, folders):
    assert f"decoded weights: 0 entries, 0 B of 2.0 MB in {folders / 'decoded'}" in sdc("cache").out
    array = np.zeros(100_000, np.uint8)
    Cache(folders / "decoded", 1 << 30).store(
        bytes(range(32)), Layout(((array.dtype, array.shape),)), [array]
    )
    ConversionCache().write("key", b"content")
    shown = sdc("cache", "show").out
    assert "decoded weights: 1 entry, 104.1 kB" in shown
    assert f"conversions: 1 entry, 39 B of 268.4 MB in {folders / 'user' / 'sdc' / 'conversion'}" in shown


def test_it_clears(sdc, folders):
    ConversionCache().write("key", b"content")
    assert "conversions: removed 1 entry" in sdc("cache", "clear").out
    assert "conversions: 0 entries" in sdc("cache").out
    assert list((folders / "user" / "sdc" / "conversion").iterdir()) == []


def test_it_says_that_the_decoded_weights_are_not_kept(sdc, monkeypatch):
    monkeypatch.setenv("SD_MIL_CACHE", "off")
    assert "off" in sdc("cache").out
