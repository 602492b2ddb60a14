import numpy as np
import pytest

from mythos.loop.exits.draw import draw_exits


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
