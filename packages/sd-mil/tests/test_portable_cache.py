"""The cache of decoded weights: never wrong, never over its bound, never in the way."""

import errno
import io
import os
import threading

import numpy as np
import pytest

pytest.importorskip("openvino")

from sd_mil import EngineError
from sd_mil import cache as caches
from sd_mil.cache import Cache, default_cache, store_anywhere
from sd_mil.storage import Layout, map_arrays, write_arrays

KEY, OTHER = bytes(range(32)), bytes(32)
ARRAYS = [
    np.arange(100, dtype=np.float16).reshape(4, 25),
    np.ones((3,), np.float32),
    np.zeros((0, 2), np.int8),
]
LAYOUT = Layout(tuple((array.dtype, array.shape) for array in ARRAYS))


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 10 * LAYOUT.length)


def same(arrays):
    return arrays is not None and all(map(np.array_equal, arrays, ARRAYS)) and len(arrays) == len(ARRAYS)


def entry(cache):
    (path,) = cache.entries()
    return path


def test_what_was_stored_is_loaded(cache):
    assert cache.load(KEY, LAYOUT) is None
    assert same(cache.store(KEY, LAYOUT, ARRAYS))
    loaded = cache.load(KEY, LAYOUT)
    assert same(loaded)
    assert [array.dtype for array in loaded] == [array.dtype for array in ARRAYS]
    assert cache.load(OTHER, LAYOUT) is None


def test_writing_to_what_was_loaded_does_not_change_the_entry(cache):
    cache.store(KEY, LAYOUT, ARRAYS)[0][:] = 7
    assert same(cache.load(KEY, LAYOUT))


@pytest.mark.parametrize("position", [0, 8, 20, 30, 60, 4096, 4100, 4295, 4296, 4352, -1])
def test_a_changed_byte_is_noticed_and_the_entry_removed(cache, position):
    cache.store(KEY, LAYOUT, ARRAYS)
    content = bytearray(entry(cache).read_bytes())
    content[position] ^= 0x10
    entry(cache).write_bytes(content)
    assert cache.load(KEY, LAYOUT) is None
    assert cache.entries() == []
    assert same(cache.store(KEY, LAYOUT, ARRAYS))


@pytest.mark.parametrize("damage", [lambda c: c[:0], lambda c: c[:10], lambda c: c[:-1], lambda c: c + b"\0"])
def test_another_length_is_noticed(cache, damage):
    cache.store(KEY, LAYOUT, ARRAYS)
    entry(cache).write_bytes(damage(entry(cache).read_bytes()))
    assert cache.load(KEY, LAYOUT) is None


def test_an_entry_under_another_key_is_noticed(cache):
    cache.store(KEY, LAYOUT, ARRAYS)
    entry(cache).rename(cache.folder / f"{OTHER.hex()}.weights")
    assert cache.load(OTHER, LAYOUT) is None


def test_arrays_that_are_not_as_the_layout_has_them_are_refused():
    with pytest.raises(ValueError, match="expected float16"):
        write_arrays(io.BytesIO(), KEY, LAYOUT, [array.astype(np.float64) for array in ARRAYS])


def test_the_least_recently_used_goes_first(tmp_path):
    cache = Cache(tmp_path, 3 * LAYOUT.length)
    keys = [bytes([number]) * 32 for number in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.store(key, LAYOUT, ARRAYS)
        os.utime(tmp_path / f"{key.hex()}.weights", (age, age))
    assert same(cache.load(keys[0], LAYOUT))
    cache.store(keys[3], LAYOUT, ARRAYS)
    assert {path.stem for path in cache.entries()} == {key.hex() for key in (keys[0], keys[2], keys[3])}
    assert cache.size == 3 * LAYOUT.length


def test_what_is_larger_than_the_bound_is_not_stored(tmp_path):
    cache = Cache(tmp_path, LAYOUT.length - 1)
    with pytest.raises(OSError, match="no room"):
        cache.store(KEY, LAYOUT, ARRAYS)
    assert same(store_anywhere(cache, KEY, LAYOUT, lambda: ARRAYS))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(cache, monkeypatch):
    def full(file, *_):
        file.write(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caches, "write_arrays", full)
    with pytest.raises(OSError, match="No space"):
        cache.store(KEY, LAYOUT, ARRAYS)
    assert list(cache.folder.iterdir()) == []
    assert same(store_anywhere(cache, KEY, LAYOUT, lambda: ARRAYS))  # in memory then


def test_without_a_cache_a_temporary_file_holds_them(monkeypatch):
    arrays = store_anywhere(None, KEY, LAYOUT, lambda: ARRAYS)
    assert same(arrays)
    assert arrays[0].base is not None


def test_a_folder_that_cannot_be_made_is_no_cache(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache", 1 << 30)
    assert cache.load(KEY, LAYOUT) is None
    assert cache.entries() == []
    assert same(store_anywhere(cache, KEY, LAYOUT, lambda: ARRAYS))


def test_remnants_of_dead_processes_are_removed(cache):
    cache.folder.mkdir()
    old, new = cache.folder / "a.partial", cache.folder / "b.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.store(KEY, LAYOUT, ARRAYS)
    assert not old.exists()
    assert new.exists()
    assert cache.clear() == LAYOUT.length + 4
    assert list(cache.folder.iterdir()) == []


def test_many_at_once_are_safe(cache):
    results = []

    def work():
        for _ in range(20):
            found = cache.load(KEY, LAYOUT)
            results.append(same(found if found is not None else cache.store(KEY, LAYOUT, ARRAYS)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert all(results)
    assert len(list(cache.folder.iterdir())) == 1


def test_the_environment_moves_bounds_and_disables_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SD_MIL_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.delenv("SD_MIL_CACHE_BYTES", raising=False)
    cache = default_cache()
    assert cache.folder == tmp_path / "not" / "yet"
    assert 0 < cache.limit <= 10_000_000_000
    monkeypatch.setenv("SD_MIL_CACHE_BYTES", "12345")
    assert default_cache().limit == 12345
    monkeypatch.setenv("SD_MIL_CACHE_BYTES", "12 GB")
    with pytest.raises(EngineError, match="SD_MIL_CACHE_BYTES"):
        default_cache()
    monkeypatch.setenv("SD_MIL_CACHE", "off")
    assert default_cache() is None


def test_the_default_is_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("SD_MIL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache().folder.name == "sd-mil"


def test_a_truncated_file_is_not_mapped(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with path.open("rb") as file:
        assert map_arrays(file, KEY, LAYOUT) is None
