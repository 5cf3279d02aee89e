"""What ``torch.randn`` draws on a CUDA device, in numpy: Philox 4x32-10, then Box and Muller's transform.

Each value has a counter of its own: the number of the draw, and where it is in the array. That is so for as
many values as the device has threads in flight (tens of thousands, more than a latent has); beyond, torch's
values depend on the device.

Sources: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011; pytorch
aten/src/ATen/cuda/detail/PhiloxCudaStateRaw.cuh and curand's ``curand_normal4``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
#: curand's scale of a word to (0, 1], and to (0, 2 pi].
_UNIT = np.float32(2.3283064e-10)
_TURN = np.float32(2.3283064e-10 * 2 * np.pi)


def philox_normal(count: int, seed: int, draw: int) -> Float32:
    """``count`` normals of the ``draw``-th call, from 0, of a generator with that seed (64 bits)."""
    words = philox(np.arange(count, dtype=np.uint64), seed, draw)
    uniform = words[0].astype(np.float32) * _UNIT + _UNIT / np.float32(2)
    angle = words[1].astype(np.float32) * _TURN + _TURN / np.float32(2)
    normal: Float32 = np.sqrt(np.float32(-2) * np.log(uniform)) * np.sin(angle)
    return normal


def philox(index: Words, seed: int, draw: int) -> tuple[Words, Words, Words, Words]:
    """The four 32-bit words for each ``index`` (as u64)."""
    key = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32 & 0xFFFFFFFF)]
    zero = np.zeros_like(index)
    words = (zero + np.uint64(draw & 0xFFFFFFFF), zero + np.uint64(draw >> 32), index & _LOW, index >> _HALF)
    for _ in range(_ROUNDS):
        low, high = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = (
            (high >> _HALF) ^ words[1] ^ key[0],
            high & _LOW,
            (low >> _HALF) ^ words[3] ^ key[1],
            low & _LOW,
        )
        key = [(part + step) & _LOW for part, step in zip(key, _WEYL, strict=True)]
    return words
