"""Weights that were read are given back; changes that are in memory only are not."""

import mmap
import sys

import numpy as np
import pytest
from mil_graphs import affine, const, program, write
from sd_mil import Block, Operation, PackageError, read_package
from sd_mil.residency import mapped_files, pages_dropped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages are dropped on Linux only")

SIZE = 4 << 20


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "weights"
    np.arange(SIZE // 4, dtype=np.int32).tofile(path)
    return np.memmap(path, np.int32, "c")


def resident_kilobytes(owner: mmap.mmap) -> int:
    start = np.frombuffer(owner, np.uint8, count=1).ctypes.data
    with open("/proc/self/smaps") as smaps:
        lines = iter(smaps)
        next(line for line in lines if line.startswith(f"{start:x}-"))
        return int(next(line for line in lines if line.startswith("Rss:")).split()[1])


@pytest.mark.parametrize("kernel", ["with a page map", "without"])
def test_pages_are_dropped_and_come_back_with_their_content(mapped, kernel, monkeypatch, tmp_path):
    if kernel == "without":
        monkeypatch.setattr("sd_mil.residency._PAGEMAP", tmp_path / "none")
    owner = mapped.base
    total = int(mapped.sum())
    assert resident_kilobytes(owner) == SIZE >> 10
    with pages_dropped([owner]):
        pass
    assert resident_kilobytes(owner) == 0
    assert int(mapped.sum()) == total


@pytest.mark.parametrize("kernel", ["with a page map", "without"])
def test_a_map_with_changes_keeps_them(mapped, kernel, monkeypatch, tmp_path):
    if kernel == "without":
        monkeypatch.setattr("sd_mil.residency._PAGEMAP", tmp_path / "none")
    mapped[5] = -1
    with pages_dropped([mapped.base]):
        pass
    assert mapped[5] == -1
    assert resident_kilobytes(mapped.base) > 0


def test_no_maps_are_no_work():
    with pages_dropped([]):
        pass


def test_pages_are_dropped_when_compiling_fails(mapped):
    mapped.sum()
    with pytest.raises(ZeroDivisionError), pages_dropped([mapped.base]):
        raise ZeroDivisionError
    assert resident_kilobytes(mapped.base) == 0


def test_the_maps_of_a_program_are_found_through_views_and_blocks(mapped):
    halves = mapped.view(np.float16).reshape(-1, 4)
    inner = Block((), (const("w", halves[:8]), const("v", halves[8:16])), ("w",))
    branch = Operation("cond", "c", {}, (), blocks=(inner, inner))
    nested = program({}, [const("n", np.ones(3, np.float16)), branch], ())
    assert mapped_files(nested) == [mapped.base]


def test_weights_changed_in_memory_are_the_ones_compiled(tmp_path):
    pytest.importorskip("openvino")
    from sd_mil.engines.portable import compile_program

    package = read_package(write(tmp_path, affine()))
    (weight,) = (one for one in package.program.operations() if one.name == "w")
    weight.attributes["val"].value[:] = 7
    x = np.ones((2, 3), np.float16)
    for _ in range(2):
        result = compile_program(package.program).run({"x": x})["y"]
        np.testing.assert_array_equal(result, [[7.5] * 3, [6.5] * 3])


def test_a_file_that_was_cut_after_it_was_mapped_is_an_error_and_no_signal(tmp_path):
    pytest.importorskip("openvino")
    from sd_mil.engines.portable import compile_program

    folder = write(tmp_path, affine())
    package = read_package(folder)
    (weights,) = folder.rglob("weight.bin")
    with weights.open("r+b") as file:
        file.truncate(0)
    with pytest.raises(PackageError, match="another program cut it"):
        compile_program(package.program)
