from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mythos.data.mixture import Mixture

WEIGHTS = st.lists(st.integers(0, 60), min_size=1, max_size=7).filter(any)


def shares(stages: list[tuple[int, tuple[int, ...]]], num_samples: int) -> np.ndarray:
    """Exact share of each source after each number of samples [N + 1, K], summed sample by sample."""
    starts = [start for start, _ in stages] + [num_samples]
    due = [
        np.repeat([np.array(weights) / sum(weights)], end - start, axis=0)
        for (start, end), (_, weights) in zip(pairwise(starts), stages, strict=True)
    ]
    return np.concatenate([np.zeros((1, len(stages[0][1]))), np.cumsum(np.concatenate(due), axis=0)])


def check(stages: list[tuple[int, tuple[int, ...]]], num_samples: int) -> None:
    mixture = Mixture(stages)
    source_N, index_N = mixture.locate(np.arange(num_samples))
    num_sources = len(stages[0][1])
    counts = np.concatenate([np.zeros((1, num_sources)), np.cumsum(np.eye(num_sources)[source_N], axis=0)])
    # The counts are floor or ceiling of the exact shares; 1e-6 allows for rounding of their sum.
    assert np.abs(counts - shares(stages, num_samples)).max() < 1 - 1e-9 + 1e-6
    for source in range(num_sources):
        mine = index_N[source_N == source]
        assert np.array_equal(mine, np.arange(len(mine)))
    for position in range(0, num_samples + 1, max(1, num_samples // 17)):
        assert np.array_equal(mixture.counts(position), counts[position])


@given(weights=WEIGHTS, num_cycles=st.integers(1, 3))
@settings(max_examples=150)
def test_every_prefix_meets_the_share_of_each_source_within_one_sample(weights: list[int], num_cycles: int) -> None:
    check([(0, tuple(weights))], num_cycles * sum(weights) + 5)


@given(stages=st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.integers(1, 4)), min_size=1))
@settings(max_examples=60)
def test_shares_stay_exact_across_stages(stages: list[tuple[list[int], int]]) -> None:
    nonzero, start = [], 0
    for weights, num_cycles in stages:
        if any(weights):
            nonzero.append((start, tuple(weights)))
            start += num_cycles * sum(weights)
    if nonzero:
        check(nonzero, start + 7)


def test_a_source_of_weight_zero_never_occurs() -> None:
    source_N, _ = Mixture([(0, (3, 0, 1))]).locate(np.arange(100))
    assert np.bincount(source_N, minlength=3).tolist() == [75, 0, 25]


@pytest.mark.parametrize("position", [10**15, 2**62])
def test_distant_positions_are_computed_directly(position: int) -> None:
    source, index = Mixture([(0, (7, 2, 1))]).locate(np.array([position - position % 10]))
    assert (source[0], index[0]) == (0, position // 10 * 7)


def test_the_order_never_changes_between_releases() -> None:
    # A resumed run would see other data.
    assert Mixture([(0, (5, 3, 2))]).locate(np.arange(10))[0].tolist() == [0, 1, 0, 2, 0, 1, 0, 1, 0, 2]
