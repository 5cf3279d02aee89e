"""Gaussian noise from a seed, bit for bit what the other pipelines draw, in numpy alone.

``numpy`` is what Apple's Python pipeline draws: ``np.random.seed(seed); np.random.randn(*shape)``.
``torch`` is what diffusers draws on a CPU: ``torch.manual_seed(seed); torch.randn(shape)``.
``torch_cuda`` is what it draws on an NVIDIA GPU (``philox.py``), the web UI's ``NV``.

Torch's float32 normals depend on the processor. Reproduced is the code that it runs on every x86 processor
with AVX2 (AVX-512 ones included: torch has no wider version of this kernel). Elsewhere, and with
``ATEN_CPU_CAPABILITY=default``, torch calls the C library's ``log``, ``cos`` and ``sin`` instead, and its
values differ from these in the last bits here and there.

Source: pytorch aten/src/ATen/native/cpu/DistributionTemplates.h (``normal_fill``), cpu/avx_mathfun.h
(``log256_ps``, ``sincos256_ps``, after Cephes), core/MT19937RNGEngine.h and core/DistributionsHelper.h.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_runtime.errors import SettingsError
from sd_runtime.philox import philox_normal

Rng: TypeAlias = Literal["numpy", "torch", "torch_cuda"]
Float32: TypeAlias = npt.NDArray[np.float32]

#: The seeds that each generator takes; torch reads a negative one modulo 2**64.
_TORCH_SEEDS = range(-(2**63), 2**64)
SEEDS: Mapping[str, range] = {"numpy": range(2**32), "torch": _TORCH_SEEDS, "torch_cuda": _TORCH_SEEDS}


def draw_noise(shape: Sequence[int], seed: int, rng: Rng = "numpy") -> Float32:
    """Unit-variance Gaussian noise of ``shape``, float32. The global generators are left alone.

    Raises:
        SettingsError: ``rng`` is unknown, or takes no such seed.
    """
    return NoiseStream(seed, rng).draw(shape)


class NoiseStream:
    """Array after array of noise from one seeded generator, as a pipeline draws them for one picture."""

    def __init__(self, seed: int, rng: Rng = "numpy") -> None:
        """Start the generator; errors as :func:`draw_noise`."""
        if rng not in SEEDS:
            raise SettingsError(f"expected a random number generator of {', '.join(SEEDS)}, got {rng!r}")
        # Both libraries seed MT19937 by Knuth's recurrence from 32 bits; torch drops the seed's upper half.
        checked = _checked_seed(seed, SEEDS[rng], rng)
        self._engine = np.random.RandomState(checked % 2**32)
        self._seed, self._draws = checked % 2**64, 0
        self._spare: list[float] = []
        self._rng = rng

    def draw(self, shape: Sequence[int]) -> Float32:
        """The next unit-variance Gaussian noise, float32."""
        count = math.prod(shape)
        return self._draw(count).reshape(tuple(shape))

    def endless(self, shape: Sequence[int]) -> Iterator[Float32]:
        """One draw after the other, as they are asked for."""
        while True:
            yield self.draw(shape)

    def _draw(self, count: int) -> Float32:
        if self._rng == "torch_cuda":
            self._draws += 1
            return philox_normal(count, self._seed, self._draws - 1)
        if self._rng == "numpy":
            return self._engine.standard_normal(count).astype(np.float32)
        if count < 16:
            return self._one_by_one(count)
        return _in_blocks(count, self._engine)

    def _one_by_one(self, count: int) -> Float32:
        """Fewer than 16 values: Box-Muller in double precision; half a pair may be left for the next."""
        while len(self._spare) < count:
            u1, u2 = _uniform53(2, self._engine).tolist()
            radius = math.sqrt(-2.0 * math.log1p(-u2))
            self._spare += [radius * math.cos(2.0 * math.pi * u1), radius * math.sin(2.0 * math.pi * u1)]
        values, self._spare = self._spare[:count], self._spare[count:]
        return np.array(values, np.float64).astype(np.float32)


def _checked_seed(seed: object, allowed: range, rng: str) -> int:
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool) and int(seed) in allowed:
        return int(seed)
    raise SettingsError(
        f"expected a seed from {allowed.start} to {allowed.stop - 1} for rng {rng!r}, got {seed!r}"
    )


def _in_blocks(count: int, engine: np.random.RandomState) -> Float32:
    """16 values or more: blocks of 16 uniforms; the last 16 are drawn anew where the blocks do not fit."""
    whole = count - count % 16
    uniforms = _uniform24(count, engine)
    normals = np.empty(count, np.float32)
    normals[:whole] = _box_muller(uniforms[:whole])
    if whole != count:
        normals[-16:] = _box_muller(_uniform24(16, engine))
    return normals


def _raw(count: int, engine: np.random.RandomState) -> npt.NDArray[np.uint32]:
    return engine.randint(0, 2**32, size=count, dtype=np.uint32)


def _uniform24(count: int, engine: np.random.RandomState) -> Float32:
    """Uniforms in [0, 1) on a grid of 2**-24."""
    return (_raw(count, engine) & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2**-24)


def _uniform53(count: int, engine: np.random.RandomState) -> npt.NDArray[np.float64]:
    """Uniforms in [0, 1) on a grid of 2**-53: two draws each, the first one on top."""
    high, low = _raw(2 * count, engine).astype(np.uint64).reshape(-1, 2).T
    return ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53


def _box_muller(uniforms: Float32) -> Float32:
    """Blocks of 8 radii and 8 angles to blocks of 16 normals, in float32, as torch's AVX2 kernel does it."""
    blocks = uniforms.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - blocks[:, 0]))
    sine, cosine = _sincos(np.float32(2 * math.pi) * blocks[:, 1])
    # The kernel ends with an fma by std = 1 and mean = 0, which turns -0 into 0.
    return (np.stack([radius * cosine, radius * sine], axis=1) + np.float32(0)).reshape(-1)


#: Cephes' polynomials (logf.c, sinf.c), leading coefficient first.
LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
#: log(2) and pi/4 in parts, so that multiplying by a small integer is exact.
LOG_2 = (-2.12194440e-4, 0.693359375)
QUARTER_PI = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)


def _log(x: Float32) -> Float32:
    """``log256_ps``: natural logarithm of positive normal numbers."""
    mantissa, exponent = np.frexp(x)  # mantissa in [0.5, 1)
    small = mantissa < np.float32(math.sqrt(0.5))
    e = (exponent - small).astype(np.float32)
    m = np.where(small, mantissa - np.float32(1) + mantissa, mantissa - np.float32(1))
    z = m * m
    y = _fma(_horner(LOG, m) * m, z, e * np.float32(LOG_2[0]))
    y = y - z * np.float32(0.5)
    return _fma(e, np.float32(LOG_2[1]), m + y)


def _sincos(x: Float32) -> tuple[Float32, Float32]:
    """``sincos256_ps`` for x >= 0: octant by octant, after reduction modulo pi/4."""
    octant = ((x * np.float32(4 / math.pi)).astype(np.int32) + 1) & ~1
    for part in QUARTER_PI:
        x = _fma(octant.astype(np.float32), np.float32(-part), x)
    z = x * x
    cosine = _fma(_horner(COSINE, z) * z, z, z * np.float32(-0.5)) + np.float32(1)
    sine = _fma(_horner(SINE, z) * z, x, x)
    swapped = (octant & 2) != 0
    return (
        np.where(swapped, cosine, sine) * _sign((octant & 4) != 0),
        np.where(swapped, sine, cosine) * _sign(((octant - 2) & 4) == 0),
    )


def _sign(negative: npt.NDArray[np.bool_]) -> Float32:
    return np.where(negative, np.float32(-1), np.float32(1))


def _horner(coefficients: Sequence[float], x: Float32) -> Float32:
    y: Float32 = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = _fma(y, x, np.float32(coefficient))
    return y


def _fma(a: Float32, b: Float32 | np.float32, c: Float32 | np.float32) -> Float32:
    """``a * b + c`` rounded once, which is how the compiler contracts the kernel's multiply-adds.

    The product of two float32 is exact in float64 and the sum is rounded there first. Rounding it again
    goes wrong only where that sum lies exactly between two float32 while the true one does not: those few
    are moved off the middle, towards the true sum.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = product + c
    halfway = (total.view(np.int64) & (2**29 - 1)) == 2**28
    if halfway.any():
        total[halfway] = _off_middle(
            product[halfway], np.broadcast_to(c, total.shape)[halfway], total[halfway]
        )
    return total.astype(np.float32)


def _off_middle(
    product: npt.NDArray[np.float64], addend: Float32, total: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """``total`` one step towards ``product + addend`` wherever it is not equal to it (Knuth's TwoSum)."""
    seen = total - product
    error = (product - (total - seen)) + (addend - seen)
    return np.where(error == 0, total, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)))
