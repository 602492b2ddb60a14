import multiprocessing

import numpy as np
import pytest
from scipy import stats

from mythos.config.depth import (
    ChoiceDepth,
    DepthConfig,
    FixedDepth,
    GrowthStage,
    LogNormalPoissonDepth,
    PoissonDepth,
    Ramp,
    UniformDepth,
)
from mythos.loop.policy import Depth, distribution, draw, draw_many, draw_rows, mean_depth

KINDS: dict[str, DepthConfig] = {
    "fixed": FixedDepth(num_loops=6, num_grad_loops=2),
    "poisson": PoissonDepth(mean=8.0),
    "poisson-held": PoissonDepth(mean=3.0, max_loops=4),
    "poisson-shallow": PoissonDepth(mean=0.5, max_loops=16),
    "lognormal_poisson": LogNormalPoissonDepth(mean=32.0, num_grad_loops=8),
    "lognormal_poisson-held": LogNormalPoissonDepth(mean=8.0, sigma=1.0, max_loops=16),
    "uniform": UniformDepth(min_loops=3, max_loops=12),
    "choice": ChoiceDepth(choices=(1, 2, 4, 16)),
    "choice-weighted": ChoiceDepth(choices=(2, 3, 8), weights=(5.0, 1.0, 0.5)),
}
CURRICULUM = PoissonDepth(
    mean=8.0,
    ramp=Ramp(num_steps=50, start_mean=1.0, start_grad_loops=1),
    growth=(GrowthStage(step=100, mean=16.0),),
)
every_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def draws(config: DepthConfig, seed: int, num_steps: int) -> list[Depth]:
    return [draw(config, seed, step) for step in range(num_steps)]


def chi_square_p(loops: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the p-value of draws under a distribution; rare values of T are counted together."""
    counts = np.bincount(loops, minlength=len(probabilities) + 1)[1:]
    expected = probabilities * len(loops)
    assert not counts[probabilities == 0].any()
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    predicted = np.append(expected[common], expected[~common].sum())
    keep = predicted > 0
    return float(stats.chisquare(observed[keep], predicted[keep]).pvalue) if keep.sum() > 1 else 1.0


@every_kind
def test_draws_of_steps_follow_the_distribution(config: DepthConfig) -> None:
    assert chi_square_p(draw_many(config, 3, 0, 100_000), distribution(config)) > 1e-3


@pytest.mark.parametrize("kind", ["poisson", "choice-weighted"])
def test_draws_of_sequences_follow_the_distribution(kind: str) -> None:
    config = KINDS[kind]
    assert chi_square_p(draw_rows(config, 3, 0, np.arange(100_000)), distribution(config)) > 1e-3


def test_the_chi_square_test_sees_a_shift_of_a_hundredth() -> None:
    loops = draw_many(PoissonDepth(mean=8.0), 3, 0, 100_000)
    assert chi_square_p(loops, distribution(PoissonDepth(mean=8.08))) < 1e-6


@every_kind
def test_many_draws_equal_single_ones(config: DepthConfig) -> None:
    singles = [draw(config, 5, step).num_loops for step in range(40, 340)]
    assert draw_many(config, 5, 40, 300).tolist() == singles


def test_many_draws_equal_single_ones_through_a_curriculum() -> None:
    assert draw_many(CURRICULUM, 0, 0, 150).tolist() == [depth.num_loops for depth in draws(CURRICULUM, 0, 150)]


@every_kind
def test_mean_depth_is_that_of_the_draws(config: DepthConfig) -> None:
    loops = draw_many(config, 1, 0, 100_000)
    num_grad_loops = np.minimum(loops, config.grad_loops)
    # five standard errors, and rounding where there is nothing to draw
    for expected, drawn in zip(mean_depth(config), (loops, num_grad_loops), strict=True):
        assert abs(expected - drawn.mean()) <= 5 * drawn.std() / 100_000**0.5 + 1e-12


@every_kind
def test_gradient_loops_are_the_smaller_of_drawn_and_configured(config: DepthConfig) -> None:
    assert all(depth.num_grad_loops == min(depth.num_loops, config.grad_loops) for depth in draws(config, 0, 300))


def test_fixed_depth_is_fixed() -> None:
    assert draws(FixedDepth(num_loops=6, num_grad_loops=2), 5, 3) == [Depth(6, 2)] * 3
    assert draw(FixedDepth(num_loops=6), 5, 0) == Depth(6, 6)


def test_poisson_draws_are_pinned() -> None:
    assert [depth.num_loops for depth in draws(PoissonDepth(mean=8.0), 0, 12)] == [
        2,
        12,
        11,
        6,
        9,
        9,
        8,
        10,
        9,
        9,
        14,
        8,
    ]
    assert draw_rows(PoissonDepth(mean=8.0), 0, 0, np.arange(12)).tolist() == [8, 6, 9, 10, 8, 9, 8, 7, 6, 3, 11, 6]


def test_seeds_and_steps_give_different_draws() -> None:
    config = PoissonDepth(mean=8.0)
    assert draws(config, 0, 100) != draws(config, 1, 100)
    assert len(set(draws(config, 0, 100))) > 5


@pytest.mark.parametrize("config", [*KINDS.values(), CURRICULUM], ids=[*KINDS, "curriculum"])
def test_a_resumed_run_continues_the_same_draws(config: DepthConfig) -> None:
    whole = draws(config, 0, 150)
    assert [draw(config, 0, step) for step in range(90, 150)] == whole[90:]
    assert [draw(config, 0, step) for step in reversed(range(150))] == whole[::-1]


def test_rows_depend_on_their_sample_alone() -> None:
    config = PoissonDepth(mean=8.0, per_sequence=True)
    sample_ids = np.array([2**40, 7, 3, 11, 500, 8])
    together = draw_rows(config, 0, 0, sample_ids)
    assert together.dtype == np.int64
    assert [int(draw_rows(config, 0, 9, np.array([i]))[0]) for i in sample_ids] == together.tolist()
    order = np.array([4, 2, 0, 5, 1, 3])
    np.testing.assert_array_equal(draw_rows(config, 0, 3, sample_ids[order]), together[order])


def test_rows_are_independent_of_steps_of_the_same_index() -> None:
    config = PoissonDepth(mean=8.0)
    rows, steps = draw_rows(config, 0, 0, np.arange(20_000)), draw_many(config, 0, 0, 20_000)
    assert abs(np.corrcoef(rows, steps)[0, 1]) < 5 / 20_000**0.5


def test_rows_follow_the_curriculum() -> None:
    sample_ids = np.arange(2000)
    for step, mean in ((0, 1.0), (50, 8.0), (99, 8.0), (100, 16.0)):
        drawn = draw_rows(CURRICULUM, 0, step, sample_ids)
        expected = distribution(PoissonDepth(mean=mean, max_loops=32, num_grad_loops=1))
        assert chi_square_p(drawn, expected) > 1e-3


def _of_rank(rank: int) -> list[object]:
    np.random.default_rng(rank).random(rank + 1)
    rows = [draw_rows(config, 7, 60, np.arange(20)).tolist() for config in (*KINDS.values(), CURRICULUM)]
    return [*rows, *(draws(config, 7, 120) for config in (*KINDS.values(), CURRICULUM))]


def test_every_rank_draws_the_same() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_of_rank, range(2))
    assert first == second == _of_rank(0)
