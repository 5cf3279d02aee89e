"""What a manifest promises of files is held, and a bundle that changes while it is open is noticed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sd_bundle import FileHashes, IntegrityError, hashes, open_bundle, reader

SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = "Data/weight.bin"


@pytest.fixture
def home(tmp_path: Path, write_bundle: Callable[..., None]) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def use(path: Path) -> None:
    """Read all of a bundle, as drawing does."""
    bundle = open_bundle(path)
    for component in bundle.manifest.components:
        bundle.package(component)
    bundle.noise_config()


def flipped(file: Path) -> None:
    """One bit of a file, in the middle; its size and its time stay."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("pattern", [f"*unet*/{WEIGHTS}", SCHEDULER])
def test_one_bit(home: Path, pattern: str) -> None:
    (file,) = home.glob(pattern)
    flipped(file)
    with pytest.raises(IntegrityError, match="sha256"):
        use(home)


def test_one_bit_of_a_bundle_that_was_good(home: Path) -> None:
    """What is remembered of a file is not believed of another one in its place, however alike they look."""
    use(home)
    flipped(home / SCHEDULER)
    with pytest.raises(IntegrityError, match="sha256"):
        use(home)


def test_a_file_is_read_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = hashes._hash
    monkeypatch.setattr(hashes, "_hash", lambda file, spans: (read.append(file), original(file, spans))[1])
    use(home)
    assert len(read) == 2
    read.clear()
    use(home)
    assert read == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', "[" * 10_000])
def test_a_damaged_memory_is_as_good_as_none(home: Path, tmp_path: Path, content: str) -> None:
    memory = tmp_path / "files.json"
    memory.write_text(content)
    file = home / SCHEDULER
    assert FileHashes(memory)(file) == FileHashes()(file)


def test_what_others_remember_meanwhile_is_known(home: Path, tmp_path: Path) -> None:
    memory, (file, other) = tmp_path / "files.json", sorted(home.rglob("*.json"))[:2]
    ours, theirs = FileHashes(memory), FileHashes(memory)
    ours(file)
    theirs(other)
    memory.write_text(memory.read_text().replace(theirs(other), "remembered"))
    assert ours(other) == "remembered"
    assert FileHashes(memory)(file) == FileHashes()(file)


def test_one_line_with_everything_as_it_was_written_before(home: Path, tmp_path: Path) -> None:
    memory, (file, other) = tmp_path / "files.json", sorted(home.rglob("*.json"))[:2]
    memory.write_text(json.dumps({hashes._state(file): "remembered"}))
    assert FileHashes(memory)(other) == FileHashes()(other)
    assert FileHashes(memory)(file) == "remembered"


def test_a_memory_that_is_too_long_keeps_the_latest(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "_LARGEST_MEMORY", 2000)
    monkeypatch.setattr(hashes, "_MOST_REMEMBERED", 3)
    memory = tmp_path / "files.json"
    files = [tmp_path / str(number) for number in range(50)]
    for file in files:
        file.write_text(file.name)
        FileHashes(memory)(file)
        assert memory.stat().st_size <= 2000
    text = memory.read_text()
    assert all(FileHashes()(file) in text for file in files[-3:])
    assert FileHashes()(files[0]) not in text


def test_a_cache_that_cannot_be_written(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = home / SCHEDULER
    assert FileHashes(tmp_path / "file" / "files.json")(file) == FileHashes()(file)


def beside(bundle: Path) -> Path:
    return bundle / "scheduler" / "more.json"


def in_a_package(bundle: Path) -> Path:
    return next(iter(bundle.glob("*.mlpackage"))) / "more.bin"


@pytest.mark.parametrize("place", [beside, in_a_package])
@pytest.mark.parametrize("kind", ["file", "link", "folder link"])
def test_what_the_manifest_does_not_list(
    home: Path, tmp_path: Path, place: Callable[[Path], Path], kind: str
) -> None:
    target = tmp_path / "elsewhere"
    if kind == "folder link":
        target.mkdir()
    else:
        target.write_text("{}")
    if kind == "file":
        place(home).write_text("{}")
    else:
        place(home).symlink_to(target)
    with pytest.raises(IntegrityError, match="expected only files that"):
        open_bundle(home)


def test_what_a_mac_leaves_in_folders(home: Path) -> None:
    (home / "scheduler" / ".DS_Store").write_bytes(b"\0")
    open_bundle(home)


def in_place(path: Path) -> None:
    """Another content of the same size in the same file; a clock tick may be coarse, so time is set."""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(1, 1))


def truncated(path: Path) -> None:
    os.truncate(path, 1)


def replaced(path: Path) -> None:
    """Another file with the same content, size and time."""
    found = path.stat()
    other = path.with_name("other")
    shutil.copyfile(path, other)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [in_place, truncated, replaced, Path.unlink])
@pytest.mark.parametrize("file", [WEIGHTS, "../manifest.json"])
def test_any_change_of_a_package_or_of_the_manifest(
    home: Path, change: Callable[[Path], None], file: str
) -> None:
    bundle = open_bundle(home)
    unet = bundle.only("denoiser")
    change(bundle.package(unet) / file)
    with pytest.raises(IntegrityError, match=file.removeprefix("../")):
        bundle.package(unet)
    if file == WEIGHTS:
        bundle.noise_config()  # whose file nobody touched


def test_a_change_while_a_package_is_read(home: Path) -> None:
    bundle = open_bundle(home)
    package = bundle.only("denoiser").package
    with pytest.raises(IntegrityError), bundle.unchanged(package):
        truncated(home / package / WEIGHTS)


def swap(bundle: Path) -> None:
    """What overwriting a bundle does."""
    other = bundle.with_name("other")
    shutil.copytree(bundle, other, copy_function=shutil.copyfile)
    bundle.rename(bundle.with_name("aside"))
    other.rename(bundle)


def test_a_swap_while_the_bundle_is_opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = reader.parse_manifest

    def parse_and_swap(text: str) -> Any:
        swap(home)
        return parse(text)

    monkeypatch.setattr(reader, "parse_manifest", parse_and_swap)
    with pytest.raises(IntegrityError, match="open it again"):
        open_bundle(home)


def test_links_stand_for_what_they_lead_to(home: Path) -> None:
    (file,) = home.glob(f"*unet*/{WEIGHTS}")
    blob = file.replace(home / "blob")
    file.symlink_to(blob)
    linked = open_bundle(home)
    linked.package(linked.only("denoiser"))
    replaced(blob)
    with pytest.raises(IntegrityError, match=r"weight\.bin"):
        linked.package(linked.only("denoiser"))


def test_two_openings_of_one_bundle_are_equal(home: Path) -> None:
    assert open_bundle(home) == open_bundle(home)
