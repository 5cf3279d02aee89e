"""The loops that numpy has no words for, compiled when this module is first imported, and kept by numba.

All run outside Python's lock, so that tensors are compressed in as many threads as there are cores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(signature: str) -> Callable[[_F], _F]:
    """Compile for these types; keep the result on the disk where there is a place for it."""

    def decorate(function: _F) -> _F:
        try:
            kept = numba.njit(signature, cache=True, nogil=True, error_model="numpy")
            return cast(_F, kept(function))
        except RuntimeError:  # neither this package nor the user's cache can be written
            return cast(_F, numba.njit(signature, nogil=True, error_model="numpy")(function))

    return decorate


@compiled("i8[::1](u2[::1])")
def count_words(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """How often each of 65,536 words occurs. Two tables, since neighbours are often equal."""
    even, odd = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    for index in range(0, len(words) - 1, 2):
        even[words[index]] += 1
        odd[words[index + 1]] += 1
    if len(words) % 2:
        even[words[-1]] += 1
    return even + odd


@compiled("void(u2[::1], u1[::1], u1[::1])")
def translate(
    words: npt.NDArray[np.uint16], table: npt.NDArray[np.uint8], result: npt.NDArray[np.uint8]
) -> None:
    """``result[i] = table[words[i]]``."""
    for index in range(len(words)):
        result[index] = table[words[index]]


@compiled("b1(u2[::1])")
def are_finite(words: npt.NDArray[np.uint16]) -> bool:
    """Whether no fp16 number with these bits is infinite, or none at all."""
    largest = np.uint16(0)
    for index in range(len(words)):
        largest = max(largest, words[index] & np.uint16(0x7C00))
    return bool(largest != np.uint16(0x7C00))


@compiled("void(u1[::1], i8, u1[::1])")
def pack_eights(values: npt.NDArray[np.uint8], bits: int, result: npt.NDArray[np.uint8]) -> None:
    """The low ``bits`` of eight values side by side, the first lowest; their number is a multiple of 8."""
    mask = np.uint8((1 << bits) - 1)
    if bits == 6:  # four at a time, with constant shifts: three times as fast
        for group in range(len(values) // 4):
            word = np.uint32(values[4 * group] & mask)
            word |= np.uint32(values[4 * group + 1] & mask) << np.uint32(6)
            word |= np.uint32(values[4 * group + 2] & mask) << np.uint32(12)
            word |= np.uint32(values[4 * group + 3] & mask) << np.uint32(18)
            result[3 * group] = np.uint8(word)
            result[3 * group + 1] = np.uint8(word >> np.uint32(8))
            result[3 * group + 2] = np.uint8(word >> np.uint32(16))
        return
    for group in range(len(values) // 8):
        wide = np.uint64(0)
        for place in range(8):
            wide |= np.uint64(values[8 * group + place] & mask) << np.uint64(bits * place)
        for place in range(bits):
            result[bits * group + place] = np.uint8(wide >> np.uint64(8 * place))


@compiled("f8(f8[::1], f8[::1], f8[::1], i8, i8)")
def _reached(costs: Floats, weight: Floats, first: Floats, start: int, end: int) -> float:
    """The cost of a prefix whose last interval is from ``start`` to ``end``, less what all starts share."""
    difference = first[end] - first[start]
    return float(costs[start] - difference * difference / (weight[end] - weight[start]))


@compiled("i4[::1](f8[::1], f8[::1], f8)")
def best_partition(weight: Floats, first: Floats, penalty: float) -> npt.NDArray[np.int32]:
    """Where the last interval of every prefix starts if each interval costs its squares and ``penalty``.

    ``weight``, ``first`` [n + 1] are sums over prefixes. A later start becomes the better one at some end and
    stays it, so the starts that are best for the ends to come are a queue of runs; where the run of a new
    start begins is searched in steps that double, as it is near.

    Source: Galil and Park, "Dynamic programming with convexity, concavity and sparsity" (1992), section 3.
    """
    size = len(weight) - 1
    costs, origins = np.zeros(size + 1), np.zeros(size + 1, np.int32)
    starts, begins = np.zeros(size + 1, np.int32), np.zeros(size + 1, np.int32)
    head = tail = 0
    for end in range(1, size + 1):
        while head < tail and begins[head + 1] <= end:
            head += 1
        origins[end] = starts[head]
        costs[end] = _reached(costs, weight, first, starts[head], end) + penalty
        if end == size:
            break
        while tail > head and begins[tail] > end:
            at = begins[tail]
            if _reached(costs, weight, first, end, at) > _reached(costs, weight, first, starts[tail], at):
                break
            tail -= 1
        last = starts[tail]
        low, high, step = max(begins[tail] - 1, end), size + 1, 1
        while low < size:  # the last start is better at low; is it at high?
            probe = min(low + step, size)
            if _reached(costs, weight, first, end, probe) <= _reached(costs, weight, first, last, probe):
                high = probe
                break
            low, step = probe, 2 * step
        if high > size:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if _reached(costs, weight, first, end, middle) <= _reached(costs, weight, first, last, middle):
                high = middle
            else:
                low = middle
        tail += 1
        starts[tail], begins[tail] = end, high
    return origins
