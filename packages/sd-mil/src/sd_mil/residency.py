"""Pages of mapped weights given back while a program is compiled or decoded.

Every weight is read once, to be written in another order or form, and never again. The pages of the file
would count as this process's memory all the same. Dropped, they stay in the system's page cache for whoever
reads them next.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PackageError
from sd_mil.ir.program import Program
from sd_mil.ir.uses import constants_in

#: Seconds between two drops. At 2 GB a second some 100 MB are resident at a time.
_INTERVAL = 0.05
_SMAPS = Path("/proc/self/smaps")
_PAGEMAP = Path("/proc/self/pagemap")
# Of its entries, see the kernel's Documentation/admin-guide/mm/pagemap.rst.
_OF_A_FILE, _ELSEWHERE, _PRESENT = (np.uint64(1 << bit) for bit in (61, 62, 63))


@contextmanager
def pages_dropped(maps: Iterable[mmap.mmap]) -> Iterator[None]:
    """Drop the pages of ``maps`` from time to time for as long as the context lasts, and at its end.

    A map with changes that are in memory only keeps its pages; so does every map on systems other than Linux.
    """
    droppable = [one for one in maps if _is_droppable(one)]
    finished = threading.Event()
    worker = threading.Thread(target=_drop_until, args=(finished, droppable), daemon=True)
    worker.start()
    try:
        yield
    finally:
        finished.set()
        worker.join()


@contextmanager
def dropping_weights(program: Program) -> Iterator[None]:
    """Read a program's weights in this context, and their pages do not add up in this process's memory."""
    with pages_dropped(mapped_files(program)):
        yield


def mapped_files(program: Program) -> list[mmap.mmap]:
    """The maps behind the constants of all functions, each once."""
    found: dict[int, mmap.mmap] = {}
    constants = (one for function in program.functions.values() for one in constants_in(function.body))
    for constant in constants:
        if isinstance(constant.content, np.ndarray) and (owner := _owner(constant.content)) is not None:
            found[id(owner)] = owner
    return list(found.values())


def refuse_truncated(maps: Iterable[mmap.mmap]) -> None:
    """Refuse weights whose file has become shorter since it was mapped.

    To read what is gone ends the process (SIGBUS), which Python cannot turn into an error; a file that is cut
    at the very moment of reading still does that.

    Raises:
        PackageError: a file is shorter than its map.
    """
    for one in maps:
        if one.size() < len(one):
            raise PackageError(
                f"expected weights of {len(one)} bytes, as when the model was opened, got a file of "
                f"{one.size()}: another program cut it; open the model again"
            )


def _owner(array: npt.NDArray[np.generic]) -> mmap.mmap | None:
    """The map that an array is a view of, through however many views."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None


def _drop_until(finished: threading.Event, maps: list[mmap.mmap]) -> None:
    over = not maps
    while not over:
        over = finished.wait(_INTERVAL)
        for one in maps:
            one.madvise(mmap.MADV_DONTNEED)


def _is_droppable(one: mmap.mmap) -> bool:
    if sys.platform != "linux":
        return False
    start = np.frombuffer(one, np.uint8, count=1).ctypes.data
    try:
        return not _is_changed(start, start + len(one))
    except OSError:
        return False


def _is_changed(start: int, end: int) -> bool:
    """Whether pages between two addresses were written to, in a map that keeps changes to itself."""
    try:
        entries = _pages(start, end)
    except OSError:  # gVisor has none
        return _has_anonymous_pages(start, end)
    return bool(((entries & (_PRESENT | _ELSEWHERE) != 0) & (entries & _OF_A_FILE == 0)).any())


def _pages(start: int, end: int) -> npt.NDArray[np.uint64]:
    """The kernel's entry for each page between two addresses: of this map alone, and so in no time."""
    first, size = start // mmap.PAGESIZE, 8
    count = -(-end // mmap.PAGESIZE) - first
    with _PAGEMAP.open("rb", buffering=0) as file:
        file.seek(first * size)
        content = file.read(count * size)
    if len(content) != count * size:
        raise OSError(f"{_PAGEMAP}: expected {count * size} bytes, got {len(content)}")
    return np.frombuffer(content, np.uint64)


def _has_anonymous_pages(start: int, end: int) -> bool:
    """The same of all maps of the process, of which a process with torch has thousands."""
    inside = False
    for line in _SMAPS.read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            first, last = (int(address, 16) for address in name.split("-"))
            inside = first < end and start < last
        elif inside and name == "Anonymous:" and rest.split()[0] != "0":
            return True
    return False
