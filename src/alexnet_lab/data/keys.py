"""Random numbers per sample: a pure function of (seed, epoch, sample, purpose), the same on any worker or rank.

Counter-based: the four are absorbed one after the other by SplitMix64's mixer (Steele, Lea, Flood, "Fast splittable
pseudorandom number generators", 2014), and the result seeds a SplitMix64 generator of the sample's own. Only whole
numbers of 64 bits, exact multiplications and scalar functions are used, so that neither the place of a sample in its
batch nor the width of a processor's vectors shows in the last bit.

N samples.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""SplitMix64's step: 2^64 over the golden ratio, made odd."""


def random_words(seed: int, epoch: int, samples: NDArray[np.int64], purpose: int, count: int) -> NDArray[np.uint64]:
    """[N, count] words of 64 random bits each."""
    state = np.zeros(1, np.uint64)
    for part in (seed, epoch, purpose):
        state = _mix(state + GOLDEN + np.array([part], np.uint64))
    state = _mix(state + GOLDEN + samples.astype(np.uint64))
    return _mix(state[:, None] + GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def uniforms(seed: int, epoch: int, samples: NDArray[np.int64], purpose: int, count: int) -> NDArray[np.float64]:
    """[N, count] multiples of 2^-53 in [0, 1)."""
    return (random_words(seed, epoch, samples, purpose, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(seed: int, epoch: int, samples: NDArray[np.int64], purpose: int, count: int) -> NDArray[np.float64]:
    """[N, count] from N(0, 1): the quantiles of uniforms, one by one (0.1 us each), see the module."""
    # Shifted by half a step, because the quantile of 0 is infinite.
    uniform = uniforms(seed, epoch, samples, purpose, count) + 2.0**-54
    quantiles = map(NormalDist().inv_cdf, uniform.ravel().tolist())
    return np.fromiter(quantiles, np.float64, uniform.size).reshape(uniform.shape)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
