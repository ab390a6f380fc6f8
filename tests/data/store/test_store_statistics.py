import numpy as np
import pytest

from alexnet_lab.data.store import statistics


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (12, 256, 256, 1))
    return (0.6 * grey + 0.4 * random.integers(0, 256, (12, 256, 256, 3))).astype(np.uint8)


def test_statistics_equal_numpys(images):
    total = statistics.sums(images)
    colour = statistics.colour(total)
    pixels = images.reshape(-1, 3) / 255
    covariance = np.cov(pixels.T, bias=True)
    assert np.allclose(statistics.mean_image(total), images.mean(axis=0), rtol=1e-6)
    assert np.allclose(colour.mean, pixels.mean(axis=0), rtol=1e-12)
    assert np.allclose(colour.std, pixels.std(axis=0), rtol=1e-12)
    assert np.allclose(colour.covariance, covariance, rtol=1e-10)
    vectors = np.array(colour.eigenvectors)
    assert np.allclose(vectors @ np.diag(colour.eigenvalues) @ vectors.T, covariance, atol=1e-11)
    assert np.allclose(vectors.T @ vectors, np.eye(3), atol=1e-11)
    assert colour.eigenvalues == sorted(colour.eigenvalues, reverse=True)
    assert (vectors[0] >= 0).all()


def test_sums_do_not_depend_on_the_grouping_of_images(images):
    whole = statistics.sums(images)
    parts = statistics.sums(images[7:]) + statistics.sums(images[:4]) + statistics.sums(images[4:7]) + statistics.zero()
    assert parts.count == whole.count
    assert np.array_equal(parts.pixels, whole.pixels)
    assert np.array_equal(parts.products, whole.products)


def test_white_images_do_not_overflow():
    colour = statistics.colour(statistics.sums(np.full((2, 256, 256, 3), 255, np.uint8)))
    assert colour.mean == [1, 1, 1]
    assert colour.std == [0, 0, 0]
