import numpy as np
import pytest

from mythos.loop.exits.draw import draw_exits, draw_exits_of_rows


@pytest.mark.parametrize(("num_loops", "num_exits"), [(8, 3), (8, 2), (3, 4), (5, 5)])
def test_drawn_exits_estimate_every_sum_without_bias(num_loops: int, num_exits: int) -> None:
    values = np.random.default_rng(0).normal(size=num_loops)
    estimates = []
    for step in range(4000):
        exits = draw_exits(num_loops, num_exits, seed=1, step=step)
        assert exits.loops == tuple(sorted(set(exits.loops)))
        assert exits.loops[-1] == num_loops - 1
        assert len(exits.loops) == min(num_loops, num_exits)
        estimates.append(sum(w * values[x] for x, w in zip(exits.loops, exits.weights, strict=True)))
    error = np.std(estimates) / len(estimates) ** 0.5
    assert np.mean(estimates) == pytest.approx(values.sum(), abs=max(1e-9, 4 * error))


def test_draws_depend_on_seed_and_step_only() -> None:
    assert draw_exits(20, 4, 0, 7) == draw_exits(20, 4, 0, 7)
    assert len({draw_exits(20, 4, 0, step).loops for step in range(50)}) > 40
    assert draw_exits(20, 4, 0, 7) != draw_exits(20, 4, 1, 7)
    assert draw_exits(9, 1, 0, 0).loops == (8,)


@pytest.mark.parametrize(("num_loops", "num_exits"), [(8, 3), (8, 2), (5, 4), (32, 4)])
def test_every_row_draws_exits_that_estimate_its_sum_without_bias(num_loops: int, num_exits: int) -> None:
    num_rows = 4000
    exits = draw_exits_of_rows(num_loops, num_exits, seed=1, step=7, sample_ids_B=np.arange(num_rows))
    assert exits.loops.shape == (num_exits, num_rows)
    assert (np.diff(exits.loops, axis=0) > 0).all()
    assert (exits.loops[0] >= 0).all()
    assert (exits.loops[-1] == num_loops - 1).all()
    values = np.random.default_rng(0).normal(size=num_loops)
    estimates = np.array(exits.weights) @ values[exits.loops]
    assert estimates.mean() == pytest.approx(values.sum(), abs=4 * estimates.std() / num_rows**0.5)


def test_draws_of_rows_depend_on_seed_step_and_sample_only() -> None:
    ids = np.array([2**40, 7, 3, 11])
    loops = draw_exits_of_rows(20, 4, 0, 7, ids).loops
    order = np.array([3, 1, 0, 2])
    np.testing.assert_array_equal(draw_exits_of_rows(20, 4, 0, 7, ids[order]).loops, loops[:, order])
    np.testing.assert_array_equal(draw_exits_of_rows(20, 4, 0, 7, ids[:1]).loops, loops[:, :1])
    for other in (draw_exits_of_rows(20, 4, 1, 7, ids), draw_exits_of_rows(20, 4, 0, 8, ids)):
        assert (other.loops != loops).any()
    assert len({tuple(row) for row in draw_exits_of_rows(20, 4, 0, 7, np.arange(50)).loops.T}) > 40
