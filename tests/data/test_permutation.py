import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mythos.data.permutation import permute


@given(size=st.integers(1, 5000), seed=st.integers(0, 2**70), epoch=st.integers(0, 10**9))
@settings(max_examples=150)
def test_permutation_is_a_bijection(size: int, seed: int, epoch: int) -> None:
    results = permute(np.arange(size), size, seed, epoch)
    assert results.dtype == np.int64
    assert np.array_equal(np.sort(results), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 255, 256, 257, 65_536, 99_991])
def test_permutation_is_a_bijection_at_the_edges(size: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, 1, 2)), np.arange(size))


def test_one_index_is_mapped_as_in_the_whole_permutation() -> None:
    size = 10_007
    whole = permute(np.arange(size), size, 3, 1)
    assert [permute(np.array([i]), size, 3, 1)[0] for i in (0, 17, 10_006)] == whole[[0, 17, 10_006]].tolist()


def test_huge_sizes_need_no_memory_and_stay_inside() -> None:
    size = 2**62 - 57
    results = permute(np.arange(size - 1000, size), size, 0, 0)
    assert results.min() >= 0
    assert results.max() < size
    assert len(np.unique(results)) == 1000


def test_seed_and_epoch_change_the_order() -> None:
    # Two independent permutations of 10,000 agree at one index on average (Poisson).
    size = 10_000
    orders = [permute(np.arange(size), size, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (10, 1))]
    agreements = [int((a == b).sum()) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(agreements) < 10
    assert int((orders[0] == np.arange(size)).sum()) < 10


@pytest.mark.parametrize("size", [7, 64, 1000])
def test_the_image_of_index_zero_is_uniform_over_seeds(size: int) -> None:
    num_bins, num_seeds = 7, 2100
    firsts = np.array([permute(np.zeros(1, np.int64), size, seed, 0)[0] for seed in range(num_seeds)])
    counts = np.bincount(firsts * num_bins // size, minlength=num_bins)
    widths = np.bincount(np.arange(size) * num_bins // size, minlength=num_bins)
    expected = num_seeds * widths / size
    # 22.5 is the 99.9% point of chi squared with 6 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 22.5


def test_neighbours_do_not_stay_together() -> None:
    size = 20_000
    results = permute(np.arange(size), size, 5, 0)
    correlation = np.corrcoef(results[:-1], results[1:])[0, 1]
    # The standard error of a correlation of independent values is 1 / sqrt(20,000), about 0.007.
    assert abs(correlation) < 0.03


def test_order_never_changes_between_releases() -> None:
    # A resumed run would read other data: a change here needs a new name in the round keys.
    assert permute(np.arange(10), 10, 0, 0).tolist() == [6, 2, 3, 8, 1, 5, 0, 7, 9, 4]
