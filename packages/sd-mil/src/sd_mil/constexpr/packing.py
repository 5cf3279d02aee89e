"""Integers of 1, 2, 3, 4, 6 or 8 bits, packed LSB first across bytes, without a loop over bits.

Bits are read a word at a time, a byte or half of three bytes, and a table says what the word holds::

    4 bits   byte       -> 2 elements        3 bits   12 bits of 3 bytes -> 4 elements
    2 bits   byte       -> 4 elements        6 bits   12 bits of 3 bytes -> 2 elements

So a look-up table is applied without unpacking its indices: the table of words holds its entries.
"""

from __future__ import annotations

import numpy as np

from sd_mil.constexpr.codec import Array

#: Bits that are read at once, by the width of an element.
_WORD_BITS = {1: 8, 2: 8, 3: 12, 4: 8, 6: 12, 8: 8}
#: Words that are looked up at a time, so that what is temporary stays in the cache. Even: see ``_words``.
_CHUNK = 1 << 15
#: Groups of eight elements that are packed at a time.
_EIGHTS = 1 << 12
#: Types that copy a whole word of results at once, by their size in bytes.
_WIDE = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}


def unpack(packed: Array, bits: int, count: int) -> Array:
    """Unsigned integers of ``bits`` bits each as ``count`` uint8.

    >>> unpack(np.array([0b01_10_11_00, 0b11], np.uint8), 2, 5).tolist()
    [0, 3, 2, 1, 3]
    """
    return look_up(packed, bits, count, np.arange(1 << bits, dtype=np.uint8))


def look_up(packed: Array, bits: int, count: int, table: Array) -> Array:
    """``table[index]`` for ``count`` packed indices.

    Raises:
        ValueError: a width that no MIL type has, too few bytes for the count, or not ``2 ** bits`` entries.
    """
    if bits not in _WORD_BITS:
        raise ValueError(f"expected elements of {', '.join(map(str, _WORD_BITS))} bits, got {bits}")
    if packed.nbytes != -(-count * bits // 8):
        raise ValueError(f"expected {-(-count * bits // 8)} bytes for {count} elements, got {packed.nbytes}")
    if table.shape != (1 << bits,):
        raise ValueError(f"expected a table of {1 << bits} entries, got shape {list(table.shape)}")
    words = _word_table(table, bits)
    result = np.empty((-(-count // words.shape[1]), words.shape[1]), table.dtype)
    wide = _WIDE.get(words.strides[0])
    source, target = (words, result) if wide is None else (words.view(wide)[:, 0], result.view(wide)[:, 0])
    for start in range(0, len(result), _CHUNK):
        chunk = target[start : start + _CHUNK]
        chunk[...] = source[_words(packed, _WORD_BITS[bits], start, len(chunk))]
    return result.reshape(-1)[:count]


def pack(values: Array, bits: int) -> Array:
    """The inverse of :func:`unpack`, for signed integers too: a flat uint8 array.

    >>> pack(np.array([0, 3, 2, 1, 3]), 2).tolist() == [0b01_10_11_00, 0b11]
    True
    """
    flat = values.reshape(-1).astype(np.uint8, copy=False)
    packed = np.empty(-(-flat.size // 8), f"V{bits}")  # eight elements become as many bytes as bits
    low_bytes = np.dtype({"names": ["low"], "formats": [packed.dtype], "itemsize": 8})
    for start in range(0, len(packed), _EIGHTS):
        part = flat[8 * start : 8 * (start + _EIGHTS)]
        words = _squeezed(np.pad(part, (0, -part.size % 8)).view("<u8"), bits)
        packed[start : start + _EIGHTS] = words.view(low_bytes)["low"]
    return packed.view(np.uint8)[: -(-flat.size * bits // 8)]


def _squeezed(words: Array, bits: int) -> Array:
    """The low ``bits`` of eight bytes, moved together: of two neighbours, of two pairs, of two fours."""
    words = words & np.uint64(((1 << bits) - 1) * 0x0101_0101_0101_0101)
    for width in (8, 16, 32):
        used = bits * width // 8
        low = sum(((1 << used) - 1) << place for place in range(0, 64, 2 * width))
        words = words & np.uint64(low) | words >> np.uint64(width - used) & np.uint64(low << used)
    return words


def _word_table(table: Array, bits: int) -> Array:
    """What every possible word holds: [2 ** word bits, elements per word]."""
    word_bits = _WORD_BITS[bits]
    shifts = np.arange(0, word_bits, bits)
    return np.ascontiguousarray(table[(np.arange(1 << word_bits)[:, None] >> shifts) & ((1 << bits) - 1)])


def _words(packed: Array, word_bits: int, first: int, count: int) -> Array:
    """Words ``first`` to ``first + count``; of 12 bits, ``first`` is even, and the last may be cut short."""
    if word_bits == 8:
        return packed[first : first + count]
    triplets = packed[first // 2 * 3 : (first + count + 1) // 2 * 3]
    low, middle, high = np.pad(triplets, (0, -len(triplets) % 3)).reshape(-1, 3).T.astype(np.intp)
    words = np.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], axis=1)
    return words.reshape(-1)[:count]
