"""Learning rate factors at the steps where they are known exactly."""

import pytest

from mythos.config.schedule import CosineSchedule, TrapezoidSchedule, warmup_steps
from mythos.optim.schedules import learning_rate_factor

COSINE = CosineSchedule(num_warmup_steps=4, final_factor=0.1)
TRAPEZOID = TrapezoidSchedule(num_warmup_steps=4, cooldown_fraction=0.5)


@pytest.mark.parametrize("config", [COSINE, TRAPEZOID])
def test_warmup_trains_from_step_zero(config) -> None:
    factors = [learning_rate_factor(config, step, 100) for step in range(5)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_is_halfway_in_the_middle_and_exact_at_the_end() -> None:
    assert learning_rate_factor(COSINE, 52, 100) == pytest.approx(0.55, abs=1e-15)
    assert learning_rate_factor(COSINE, 28, 100) == pytest.approx(0.1 + 0.9 * (0.5 + 0.125**0.5), abs=1e-15)
    assert 0.1 < learning_rate_factor(COSINE, 99, 100) < 0.1003
    assert learning_rate_factor(COSINE, 100, 100) == 0.1


def test_trapezoid_is_flat_then_straight() -> None:
    factors = [learning_rate_factor(TRAPEZOID, step, 100) for step in (4, 49, 50, 51, 75, 99, 100)]
    assert factors == [1.0, 1.0, 1.0, 0.98, 0.5, 0.02, 0.0]


def test_trapezoid_ends_at_its_final_factor() -> None:
    config = TrapezoidSchedule(num_warmup_steps=0, cooldown_fraction=0.2, final_factor=0.5)
    assert [learning_rate_factor(config, step, 10) for step in (0, 8, 9, 10)] == [1.0, 1.0, 0.75, 0.5]


def test_without_cooldown_the_plateau_lasts_to_the_end() -> None:
    config = TrapezoidSchedule(num_warmup_steps=0, cooldown_fraction=0.0)
    assert [learning_rate_factor(config, step, 10) for step in range(10)] == [1.0] * 10


def test_the_lower_of_warmup_and_cooldown_applies() -> None:
    config = TrapezoidSchedule(num_warmup_steps=8, cooldown_fraction=0.5)
    assert [learning_rate_factor(config, step, 8) for step in range(8)] == [
        *(0.125, 0.25, 0.375, 0.5, 0.625, 0.75),
        *(0.5, 0.25),
    ]


def test_cosine_that_is_all_warmup_reaches_one_in_its_last_step() -> None:
    config = CosineSchedule(num_warmup_steps=4)
    assert [learning_rate_factor(config, step, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 0.1]


@pytest.mark.parametrize("config", [COSINE, TRAPEZOID])
@pytest.mark.parametrize("num_steps", [1, 7, 1000])
def test_every_step_of_a_run_trains_and_none_exceeds_the_rate(config, num_steps: int) -> None:
    factors = [learning_rate_factor(config, step, num_steps) for step in range(num_steps)]
    assert min(factors) > 0
    assert max(factors) <= 1
    assert learning_rate_factor(config, num_steps + 5, num_steps) == config.final_factor


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [(1, 0), (2, 1), (20, 10), (119, 59), (120, 60), (600, 60), (1000, 100), (20_000, 2000), (500_000, 2000)],
)
def test_the_default_warmup_is_a_share_of_the_run_within_bounds(num_steps: int, expected: int) -> None:
    config = TrapezoidSchedule()
    assert warmup_steps(config, num_steps) == expected
    assert learning_rate_factor(config, 0, num_steps) == (1 / expected if expected else 1.0)
