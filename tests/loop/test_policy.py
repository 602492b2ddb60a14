import multiprocessing

import numpy as np
import pytest
from scipy import stats

from mythos.config.depth import DepthConfig, FixedDepth, PoissonDepth
from mythos.loop.policy import Depth, distribution, draw, mean_depth


def draws(config: DepthConfig, seed: int, num_steps: int) -> list[Depth]:
    return [draw(config, seed, step) for step in range(num_steps)]


@pytest.mark.parametrize(("mean", "max_loops"), [(8.0, 32), (3.0, 4), (0.5, 16)])
def test_draws_follow_the_distribution(mean: float, max_loops: int) -> None:
    config = PoissonDepth(mean=mean, max_loops=max_loops)
    num_draws = 100_000
    counts = np.bincount([d.num_loops for d in draws(config, 3, num_draws)], minlength=max_loops + 1)[1:]
    expected = distribution(config) * num_draws
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    predicted = np.append(expected[common], expected[~common].sum())
    keep = predicted > 0
    assert stats.chisquare(observed[keep], predicted[keep]).pvalue > 1e-3


def test_distribution_is_poisson_held_inside_its_bounds() -> None:
    found = distribution(PoissonDepth(mean=3.0, max_loops=4))
    poisson = stats.poisson(3.0)
    expected = [poisson.cdf(1), poisson.pmf(2), poisson.pmf(3), poisson.sf(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gradient_loops_are_the_smaller_of_drawn_and_configured() -> None:
    config = PoissonDepth(mean=8.0)
    found = draws(config, 0, 1000)
    assert all(depth.num_grad_loops == min(depth.num_loops, 4) for depth in found)
    mean_loops, mean_grad_loops = mean_depth(config)
    assert mean_loops == pytest.approx(np.mean([d.num_loops for d in draws(config, 1, 20_000)]), rel=0.02)
    assert 3.9 < mean_grad_loops < 4


def test_fixed_depth_is_fixed() -> None:
    assert draws(FixedDepth(num_loops=6, num_grad_loops=2), 5, 3) == [Depth(6, 2)] * 3
    assert draw(FixedDepth(num_loops=6), 5, 0) == Depth(6, 6)


def test_seeds_and_steps_give_different_draws() -> None:
    config = PoissonDepth(mean=8.0)
    assert draws(config, 0, 100) != draws(config, 1, 100)
    assert len(set(draws(config, 0, 100))) > 5
    assert draws(config, 0, 100)[57] == draw(config, 0, 57)


def _of_rank(rank: int) -> list[Depth]:
    np.random.default_rng(rank).random(rank + 1)
    return draws(PoissonDepth(mean=8.0), 7, 200)


def test_every_rank_draws_the_same_depths() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_of_rank, range(2))
    assert first == second == _of_rank(0)
