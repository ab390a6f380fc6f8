import numpy as np
import pytest
import slow_reference as slow

from alexnet_lab.data.keys import normals, random_words, uniforms

SAMPLES = np.array([0, 1, 2, 1_281_166, 77])


def test_words_match_the_written_definition():
    for seed, epoch, purpose in [(0, 0, 0), (7, 3, 5), (2**63 - 1, 89, 1)]:
        expected = [slow.words(seed, epoch, int(sample), purpose, 4) for sample in SAMPLES]
        assert random_words(seed, epoch, SAMPLES, purpose, 4).tolist() == expected
        assert uniforms(seed, epoch, SAMPLES, purpose, 3).tolist() == [
            slow.uniforms(seed, epoch, int(sample), purpose, 3) for sample in SAMPLES
        ]
        assert normals(seed, epoch, SAMPLES, purpose, 3).tolist() == [
            slow.normals(seed, epoch, int(sample), purpose, 3) for sample in SAMPLES
        ]


def test_words_are_stable_across_versions():
    assert random_words(0, 0, np.array([0]), 0, 2).tolist() == [[8695987549771912286, 13369316111306796529]]


def test_numbers_of_a_sample_do_not_depend_on_its_batch():
    everyone = np.arange(1000)
    whole = normals(3, 4, everyone, 5, 3)
    for part in (everyone[::-1], everyone[5:6], everyone[3::7]):
        assert np.array_equal(normals(3, 4, part, 5, 3), whole[part])
    assert normals(3, 4, everyone[:0], 5, 3).shape == (0, 3)


def test_different_seeds_epochs_samples_and_purposes_are_independent():
    samples = np.arange(20_000)
    streams = [
        uniforms(*key, samples, purpose, 1)[:, 0] for *key, purpose in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    streams.append(np.roll(streams[0], 1))
    correlations = np.corrcoef(streams) - np.eye(5)
    assert np.abs(correlations).max() < 0.03  # four standard deviations
    assert len(np.unique(np.concatenate(streams[:4]))) == 80_000


@pytest.mark.parametrize("bins", [2, 33, 256])
def test_uniforms_fill_their_range_evenly(bins):
    counts = np.bincount((uniforms(1, 2, np.arange(100_000), 0, 1)[:, 0] * bins).astype(int), minlength=bins)
    expected = 100_000 / bins
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < bins - 1 + 5 * np.sqrt(2 * bins)


def test_normals_have_the_moments_of_the_normal_distribution():
    drawn = normals(0, 0, np.arange(50_000), 5, 3)
    assert np.abs(drawn.mean(0)).max() < 0.02
    assert np.abs(drawn.std(0) - 1).max() < 0.02
    assert np.abs((drawn**4).mean(0) - 3).max() < 0.2
