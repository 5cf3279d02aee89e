"""How close two arrays are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sd_mil.errors import ComparisonError


def psnr(reference: npt.ArrayLike, candidate: npt.ArrayLike) -> float:
    """Peak signal-to-noise ratio, ``20 log10(max |reference| / rmse)``.

    The peak is the largest magnitude of the reference and the noise its root mean squared difference to the
    candidate, both in float64. NaN or infinity in either array gives ``-inf``; so does noise on a reference
    that is zero everywhere.

    Units: dB.

    Raises:
        ComparisonError: the shapes differ, or the arrays are empty.

    Source: ``compute_psnr`` and ``report_correctness`` of ``torch2coreml.py`` in apple/ml-stable-diffusion,
    which wants 35 dB. Theirs takes the peak of the candidate, so that a wrong output may raise its own score,
    and adds 1e-5 to the peak and 1e-10 to the noise, so that equal arrays give a number that depends on the
    signal's size. Ours does neither; on good outputs the two agree to hundredths of a dB.
    """
    expected, got = (np.asarray(array, dtype=np.float64) for array in (reference, candidate))
    if expected.shape != got.shape or expected.size == 0:
        raise ComparisonError(f"expected two arrays of one shape, got {expected.shape} and {got.shape}")
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        return -math.inf
    with np.errstate(over="ignore"):
        noise = math.sqrt(np.square(expected - got).mean())
    peak = float(np.abs(expected).max())
    if math.isinf(noise):  # numbers whose squares float64 does not hold
        return -math.inf
    if noise == 0:
        return math.inf
    return 20 * math.log10(peak / noise) if peak else -math.inf
