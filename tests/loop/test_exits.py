import numpy as np
import pytest
import torch

from mythos.loop.exits import (
    by_output_divergence,
    by_quantile,
    by_relative_acceleration,
    by_relative_change,
    by_stable_argmax,
    draw_exits,
)


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


def test_rules_stop_where_their_condition_first_holds() -> None:
    p = torch.tensor([[0.1, 0.6], [0.5, 0.2], [0.4, 0.2]])
    assert by_quantile(p, 0.5).tolist() == [1, 0]
    assert by_quantile(p, 0.99).tolist() == [2, 2]

    state = torch.tensor([[1.0, 0.0], [2.0, 0.0], [2.01, 0.0], [2.01, 0.0]])[:, None, :]
    assert by_relative_change(state, 0.01).tolist() == [2]
    assert by_relative_change(state, 1e-9).tolist() == [3]
    assert by_relative_change(state[:2], 1e-9).tolist() == [1]
    line = torch.tensor([[1.0], [2.0], [3.0], [9.0]])[:, None, :]
    assert by_relative_acceleration(line, 1e-6).tolist() == [2]

    log_prob = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.501, 0.499]]).log()[:, None, :]
    assert by_output_divergence(log_prob, 5e-4).tolist() == [2]
    assert by_output_divergence(log_prob, 1.0).tolist() == [1]

    choice = torch.tensor([[3, 1], [3, 2], [4, 2], [4, 2]])
    assert by_stable_argmax(choice, 2).tolist() == [1, 2]
    assert by_stable_argmax(choice, 3).tolist() == [3, 3]
