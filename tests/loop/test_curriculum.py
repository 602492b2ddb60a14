import numpy as np
import pytest

from mythos.config.depth import (
    ChoiceDepth,
    DepthConfig,
    DrawnDepth,
    FixedDepth,
    GrowthStage,
    LogNormalPoissonDepth,
    PoissonDepth,
    Ramp,
    UniformDepth,
)
from mythos.loop.curriculum import grad_loops_at, mean_at
from mythos.loop.policy import distribution, draw, draw_rows, mean_depth

BOTH = Ramp(num_steps=100, start_mean=2.0, start_grad_loops=1)
ROOT_BOTH = Ramp(num_steps=100, shape="one_minus_sqrt", start_mean=2.0, start_grad_loops=1)
GROWTH = (GrowthStage(step=200, mean=12.0), GrowthStage(step=300, mean=14.0, num_grad_loops=3))
KINDS: list[DrawnDepth] = [
    PoissonDepth(mean=8.0, ramp=BOTH, growth=GROWTH, max_loops=32),
    LogNormalPoissonDepth(mean=8.0, ramp=ROOT_BOTH, growth=GROWTH, max_loops=32),
    UniformDepth(min_loops=2, max_loops=14, ramp=BOTH, growth=GROWTH),
    ChoiceDepth(choices=(2, 4, 8, 16), ramp=ROOT_BOTH, growth=GROWTH),
]
every_kind = pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.5), ("one_minus_sqrt", 1 - 0.5**0.5)])
def test_a_ramp_goes_from_its_start_to_the_policy(shape: str, halfway: float) -> None:
    config = PoissonDepth(mean=8.0, ramp=Ramp(num_steps=100, shape=shape, start_mean=2.0, start_grad_loops=1))
    assert [mean_at(config, step) for step in (0, 100, 101, 10**6)] == [2.0, 8.0, 8.0, 8.0]
    assert mean_at(config, 99) < 8.0
    assert mean_at(config, 50) == pytest.approx(2 + 6 * halfway, rel=1e-12)
    assert [grad_loops_at(config, step) for step in (0, 1, 100, 10**6)] == [1, 2, 4, 4]


def test_a_ramp_changes_only_what_it_names() -> None:
    forward = PoissonDepth(mean=8.0, ramp=Ramp(num_steps=10, start_mean=1.0))
    backward = PoissonDepth(mean=8.0, ramp=Ramp(num_steps=10, start_grad_loops=1))
    assert (mean_at(forward, 0), grad_loops_at(forward, 0)) == (1.0, 4)
    assert (mean_at(backward, 0), grad_loops_at(backward, 0)) == (8.0, 1)


def test_whole_numbers_of_a_linear_ramp_are_met_exactly() -> None:
    for num_steps in range(1, 60):
        config = PoissonDepth(
            mean=60.0, max_loops=64, num_grad_loops=num_steps + 1, ramp=Ramp(num_steps=num_steps, start_grad_loops=1)
        )
        assert [grad_loops_at(config, step) for step in range(num_steps + 1)] == list(range(1, num_steps + 2))


@every_kind
def test_growth_begins_at_its_step(config: DrawnDepth) -> None:
    assert [mean_at(config, step) for step in (199, 200, 299, 300)] == [config.mean, 12.0, 12.0, 14.0]
    assert [grad_loops_at(config, step) for step in (199, 200, 299, 300)] == [4, 6, 6, 3]


def test_k_of_a_stage_is_that_of_the_policy_where_it_has_one() -> None:
    config = PoissonDepth(mean=8.0, num_grad_loops=5, growth=(GrowthStage(step=9, mean=20.0),))
    assert grad_loops_at(config, 9) == 5


@every_kind
def test_neither_the_mean_nor_the_T_of_a_sequence_ever_falls(config: DrawnDepth) -> None:
    means = [mean_at(config, step) for step in range(400)]
    assert (np.diff(means) >= 0).all()
    rows = np.array([draw_rows(config, 0, step, np.arange(50)) for step in range(0, 400, 10)])
    assert (np.diff(rows, axis=0) >= 0).all()
    assert (rows[-1] > rows[0]).any()


@every_kind
def test_draws_use_the_distribution_and_k_of_their_step(config: DrawnDepth) -> None:
    for step in (0, 37, 100, 250, 350):
        depth = draw(config, 0, step)
        assert depth.num_grad_loops == min(depth.num_loops, grad_loops_at(config, step))
        mass = distribution(config, step)
        assert mass.sum() == pytest.approx(1, abs=1e-12)
        assert mean_depth(config, step)[0] == pytest.approx(mass @ np.arange(1, len(mass) + 1), rel=1e-12)


@pytest.mark.parametrize("step", [0, 37, 250])
def test_the_mean_of_a_step_is_exact_where_nothing_is_cut_off(step: int) -> None:
    for config in KINDS[2:]:
        assert mean_depth(config, step)[0] == pytest.approx(mean_at(config, step), rel=1e-9)
    lognormal = LogNormalPoissonDepth(mean=8.0, ramp=BOTH, growth=GROWTH, max_loops=400)
    assert mean_depth(lognormal, step)[0] == pytest.approx(mean_at(lognormal, step) + 1, rel=1e-9)


@pytest.mark.parametrize("config", [*KINDS, FixedDepth(num_loops=6, num_grad_loops=2)], ids=lambda config: config.kind)
def test_without_a_step_the_curriculum_is_ignored(config: DepthConfig) -> None:
    assert (mean_at(config), grad_loops_at(config)) == (config.mean, config.grad_loops)
