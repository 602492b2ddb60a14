import numpy as np
import pytest

from mythos.report.read import Series
from mythos.report.reduce import at_the_end, quarters, smooth, table, thin


@pytest.mark.parametrize("length", [101, 1000, 12_345])
def test_thinning_keeps_ends_and_extremes_within_the_limit(length: int) -> None:
    values = np.random.default_rng(length).normal(size=length)
    kept = thin(values, 100)
    assert len(kept) <= 100
    assert kept[0] == 0
    assert kept[-1] == length - 1
    assert (np.diff(kept) > 0).all()
    assert {values.argmin(), values.argmax()} <= set(kept)


def test_thinning_keeps_a_spike_beside_nans() -> None:
    values = np.zeros(10_000)
    values[5000:5010] = np.nan
    values[5010], values[4999] = 9.0, -9.0
    assert {5010, 4999} <= set(thin(values, 50))


def test_a_short_series_is_unchanged() -> None:
    assert thin(np.arange(7.0), 7).tolist() == list(range(7))


def test_the_running_mean_narrows_to_the_first_value_and_is_cut_off_at_the_end() -> None:
    smoothed = smooth(np.array([8.0, 4.0, 3.0, 2.0, 1.0, 6.0]), 2)
    np.testing.assert_allclose(smoothed, [8.0, 5.0, 3.6, 3.2, 3.0, 3.0], rtol=1e-12)


def test_the_running_mean_ignores_values_that_are_not_finite() -> None:
    smoothed = smooth(np.array([1.0, np.nan, np.inf, 3.0, np.nan, np.nan, np.nan]), 1)
    np.testing.assert_allclose(smoothed, [1.0, 1.0, 3.0, 3.0, 3.0, np.nan, np.nan], rtol=1e-12)


def test_a_table_aligns_series_with_different_steps() -> None:
    rows = [
        Series(np.array([10, 20, 30]), np.array([1.0, 2.0, np.nan])),
        Series(np.array([20]), np.array([5.0])),
    ]
    steps, matrix = table(rows, 100)
    assert steps.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(matrix, [[1.0, 2.0, np.nan], [np.nan, 5.0, np.nan]])


def test_a_long_table_averages_neighbouring_steps() -> None:
    steps = np.arange(0, 40, 10)
    columns, matrix = table([Series(steps, np.array([1.0, 3.0, 5.0, 9.0])), Series(steps[1:2], np.array([4.0]))], 2)
    assert columns.tolist() == [5.0, 25.0]
    np.testing.assert_array_equal(matrix, [[2.0, 7.0], [4.0, np.nan]])


def test_the_end_of_a_run_is_the_last_quarter_of_its_steps() -> None:
    steps = list(range(10, 101, 10))
    loops = {0: Series.of(steps, [float(step) for step in steps])}
    loops[1] = Series.of([10, 80, 90, 100], [1.0, 5.0, 7.0, np.nan])
    loops[2] = Series.of([10, 70], [1.0, 1.0])  # no step of the last quarter was that deep
    result = at_the_end(loops)
    assert result.steps.tolist() == [0, 1]
    assert result.values.tolist() == [(80 + 90) / 2, 6.0]  # both loops over the steps that ran both


def test_quarters_average_all_loops_over_the_same_measurements() -> None:
    """The value is the step, for every loop; 3 of 4 measurements of the first half ran loop 1, half of them loop 2."""
    steps = list(range(1, 17))
    shallow = [step for step in steps if step % 4]
    loops = {0: steps, 1: shallow, 2: [step for step in steps if step % 2]}
    result = quarters({loop: Series.of(each, [float(step) for step in each]) for loop, each in loops.items()})
    assert result.loops == [0, 1]
    assert result.steps.tolist() == [2.0, 6.0, 10.0, 14.0]
    assert result.values.tolist() == [[2.0, 6.0, 10.0, 14.0]] * 2


def test_few_measurements_have_fewer_parts_and_none_without_values() -> None:
    assert quarters({0: Series.of([5, 9], [1.0, 3.0])}).values.tolist() == [[1.0, 3.0]]
    assert quarters({0: Series.of([5, 9], [np.nan, np.nan])}).loops == []
    assert quarters({}).loops == []
    assert at_the_end({}).steps.tolist() == []
