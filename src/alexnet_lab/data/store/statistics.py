"""Statistics of the training images from sums of integers: exact, independent of order and interruptions.

They are computed before any JPEG encoding, so both formats of a store have the same statistics.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.data.store.images import SIZE

DIGITS = 12
"""Number of decimals, which hides rounding differences between versions of LAPACK."""


@dataclass(frozen=True)
class Sums:
    """Sums over images; int64 suffices for 3 * 10^10 images."""

    count: int
    pixels: NDArray[np.int64]
    """[256, 256, 3], grey levels summed over the images"""
    products: NDArray[np.int64]
    """[3, 3], products of a pixel's channels summed over all pixels"""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.count + other.count, self.pixels + other.pixels, self.products + other.products)


class Colour(NamedTuple):
    """Covariance of the RGB values of all pixels, in [0, 1]."""

    mean: list[float]
    std: list[float]
    covariance: list[list[float]]
    eigenvalues: list[float]
    """Eigenvalues of the covariance, largest first."""
    eigenvectors: list[list[float]]
    """Rows R G B, columns in the order of the eigenvalues; the R of each is not negative."""


def zero() -> Sums:
    return Sums(0, np.zeros((SIZE, SIZE, 3), np.int64), np.zeros((3, 3), np.int64))


def sums(images: NDArray[np.uint8]) -> Sums:
    """The sums over images [N, 256, 256, 3]."""
    products = np.zeros((3, 3), np.int64)
    for image in images:
        # 32 bits suffice: 65,536 pixels times 255 squared is 4.26 * 10^9.
        channels = image.reshape(-1, 3).T.astype(np.uint32, order="C")
        products += (channels @ channels.T).astype(np.int64)
    return Sums(len(images), images.sum(axis=0, dtype=np.int64), products)


def principal_components(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, [C], largest first, and eigenvectors, [C, C], columns whose first entry is not negative."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    return values, vectors * np.where(vectors[0] < 0, -1.0, 1.0)


def mean_image(total: Sums) -> NDArray[np.float32]:
    """[256, 256, 3], in grey levels 0 to 255."""
    return (total.pixels / total.count).astype(np.float32)


def colour(total: Sums) -> Colour:
    """The per-channel means, standard deviations and principal components, over all pixels (population statistics)."""
    pixels = total.count * SIZE * SIZE
    # Python integers from here on: the products of sums do not fit into 64 bits.
    first = [int(value) for value in total.pixels.sum(axis=(0, 1))]
    second = [[int(value) for value in row] for row in total.products]
    covariance = np.array(
        [[(second[i][j] * pixels - first[i] * first[j]) / (255 * pixels) ** 2 for j in range(3)] for i in range(3)]
    )
    values, vectors = principal_components(covariance)
    return Colour(
        mean=[value / (255 * pixels) for value in first],
        std=np.sqrt(covariance.diagonal()).tolist(),
        covariance=covariance.tolist(),
        eigenvalues=np.round(values, DIGITS).tolist(),
        eigenvectors=np.round(vectors, DIGITS).tolist(),
    )
