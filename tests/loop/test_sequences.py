from pathlib import Path

import numpy as np
import pytest

from mythos.config.depth import FixedDepth, GrowthStage, PoissonDepth, UniformDepth
from mythos.loop.policy import draw_rows
from mythos.loop.sequences import Saving, active_rows, expected_saving, saving

PAGE = Path(__file__).parents[2] / "docs" / "depth.md"


def test_rows_enter_late_and_end_together() -> None:
    assert active_rows(np.array([5, 2, 1, 2])) == [1, 1, 1, 3, 4]
    assert active_rows(np.array([3, 3])) == [2, 2, 2]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
def test_every_row_runs_as_often_as_it_was_drawn(batch_size: int) -> None:
    loops = draw_rows(PoissonDepth(mean=8.0), 0, 0, np.arange(batch_size))
    runs = np.zeros(batch_size, dtype=np.int64)
    for num_rows in active_rows(loops):
        runs[:num_rows] += 1
    np.testing.assert_array_equal(runs, np.sort(loops)[::-1])


def test_saving_of_one_batch() -> None:
    result = saving(np.array([5, 2, 1, 2]), num_grad_loops=2)
    assert result.loops == pytest.approx(1 - 10 / 20, rel=1e-12)
    # with gradients 2 + 2 + 1 + 2 loops of 3 units, without 3 of 1; max(T) for all four: 8 and 12
    assert result.training == pytest.approx(1 - (7 * 3 + 3) / (8 * 3 + 12), rel=1e-12)


def test_nothing_is_saved_where_all_rows_are_alike() -> None:
    assert saving(np.array([4, 4, 4]), 2) == Saving(0.0, 0.0)
    assert expected_saving(FixedDepth(num_loops=4), 8) == Saving(0.0, 0.0)
    assert expected_saving(PoissonDepth(mean=8.0), 1) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_expected_saving_is_that_of_many_batches() -> None:
    config, batch_size = PoissonDepth(mean=4.0), 8
    loops = draw_rows(config, 0, 0, np.arange(2500 * batch_size)).reshape(-1, batch_size)
    deepest = loops.max(axis=1)
    cost, full = (t + 2 * np.minimum(t, config.grad_loops) for t in (loops, deepest))
    result = expected_saving(config, batch_size)
    # 2500 batches: standard errors of these ratios are near 0.002
    assert result.loops == pytest.approx(1 - loops.sum() / (batch_size * deepest.sum()), abs=0.01)
    assert result.training == pytest.approx(1 - cost.sum() / (batch_size * full.sum()), abs=0.01)


def test_saving_of_two_rows_with_two_values_of_T_by_hand() -> None:
    # mean 1.5; the larger T of two rows is 1 in a quarter of the batches
    result = expected_saving(UniformDepth(max_loops=2, num_grad_loops=1), 2)
    assert result.loops == pytest.approx(1 - 1.5 / 1.75, rel=1e-12)
    assert result.training == pytest.approx(1 - 3.5 / 3.75, rel=1e-12)


def test_saving_follows_the_curriculum() -> None:
    grown = PoissonDepth(mean=4.0, growth=(GrowthStage(step=10, mean=16.0),), max_loops=64)
    assert expected_saving(grown, 8, step=9) == expected_saving(grown, 8)
    assert expected_saving(grown, 8, step=10) == expected_saving(PoissonDepth(mean=16.0, max_loops=64), 8)


@pytest.mark.parametrize("mean", [4, 8, 16])
def test_the_table_in_the_documentation_is_true(mean: int) -> None:
    savings = [expected_saving(PoissonDepth(mean=mean, max_loops=4 * mean), size) for size in (8, 32, 128)]
    cells = [f"{s.loops:.0%} ({s.training:.0%})" for s in savings]
    assert f"| {mean} | {' | '.join(cells)} |" in PAGE.read_text().splitlines()
