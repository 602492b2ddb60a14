import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mythos.config.base import ConfigError
from mythos.data.skips import add, merge, sample_at

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda pair: (pair[0], sum(pair))), max_size=6)


@given(ranges=RANGES)
def test_the_stream_holds_the_indices_outside_the_ranges(ranges: list[tuple[int, int]]) -> None:
    skipped = {index for start, end in ranges for index in range(start, end)}
    expected = [index for index in range(200) if index not in skipped][:100]
    assert sample_at(np.arange(100), merge(ranges)).tolist() == expected


def test_adjacent_ranges_are_merged() -> None:
    assert merge([(5, 7), (1, 3), (3, 4), (6, 9)]) == ((1, 4), (5, 9))


def test_a_range_after_the_position_is_added() -> None:
    skipped = add(((2, 4),), [(7, 9)], position=5)
    assert skipped == ((2, 4), (7, 9))
    assert sample_at(np.arange(7), skipped).tolist() == [0, 1, 4, 5, 6, 9, 10]
    assert add(((2, 4),), [(2, 3)], position=5) == ((2, 4),)


def test_a_range_that_was_trained_on_is_refused_with_the_next_sample() -> None:
    with pytest.raises(ConfigError, match=r"data\.skipped is \[\(6, 9\)\], but samples up to 6 .* from 7 on"):
        add(((2, 4),), [(6, 9)], position=5)
