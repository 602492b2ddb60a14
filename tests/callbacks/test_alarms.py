import math

import pytest
from helpers import run_config

from mythos.callbacks.alarms import Alarm, raised
from mythos.config import records

FEW = ("telemetry.alarms.num_records=2", "telemetry.alarms.num_warmup_steps=100")
RUN = run_config("depth.mean=6", *FEW)
LIMITS = RUN.telemetry.alarms
HEALTHY = {
    **{records.token_correlation(t): 0.3 + 0.02 * t for t in range(6)},
    **{records.relative_change(t): 0.5**t for t in range(6)},
    **{records.loss_at(depth): 4.0 - 0.1 * depth for depth in (1, 2, 4, 6)},
    **{records.halting_mass(t): 1 / 6 for t in range(6)},
    **{records.idle_steps(layer): 0.0 for layer in range(2)},
}


def judge(*history: dict[str, float], step: int = 100) -> list[Alarm]:
    return raised(history, step, RUN)


def only(alarms: list[Alarm]) -> Alarm:
    assert len(alarms) == 1
    return alarms[0]


def test_a_healthy_run_raises_no_alarm() -> None:
    assert judge(HEALTHY, HEALTHY, HEALTHY) == []


BROKEN = {
    "token_correlation": (HEALTHY | {records.token_correlation(4): 0.97}, 0.97),
    "growing_change": (HEALTHY | {records.relative_change(t): 0.1 * 1.2**t for t in range(6)}, 1.2),
    "ignored_state": (HEALTHY | {records.loss_at(6): 3.9 * 0.995}, 0.005),
    "starved_loop": (HEALTHY | {records.halting_mass(2): 1e-6}, 1e-6),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_limit_must_be_crossed_in_consecutive_records(name: str) -> None:
    broken, figure = BROKEN[name]
    assert judge(broken) == judge(HEALTHY, broken) == judge(broken, HEALTHY) == []
    alarm = only(judge(HEALTHY, broken, broken))
    assert alarm.name == name
    assert alarm.figure == pytest.approx(figure)
    limit = {"growing_change": "change_growth", "starved_loop": "halting_mass"}.get(name, name)
    assert alarm.limit == getattr(LIMITS, limit)


@pytest.mark.parametrize("name", ["ignored_state", "starved_loop"])
def test_alarms_of_learned_behaviour_wait_for_the_warm_up(name: str) -> None:
    broken, _ = BROKEN[name]
    assert judge(broken, broken, step=99) == []


def test_the_sentence_names_the_loop_and_the_numbers() -> None:
    alarm = only(judge(*[BROKEN["token_correlation"][0]] * 2))
    assert "after loop 4" in alarm.sentence
    assert "0.970, above 0.95" in alarm.sentence


def test_rounding_at_a_fixed_point_is_not_growth() -> None:
    converged = HEALTHY | {records.relative_change(t): 1e-6 * 1.5**t for t in range(6)}
    assert judge(converged, converged) == []


def test_loops_beyond_the_mean_depth_may_starve() -> None:
    unused = HEALTHY | {records.halting_mass(6): 0.0}
    assert judge(unused, unused) == []


def test_idle_experts_and_non_finite_metrics_need_one_record() -> None:
    idle = only(judge(HEALTHY | {records.idle_steps(1): 500.0}, step=3))
    assert (idle.name, idle.figure, idle.limit) == ("dead_expert", 500.0, 500.0)
    assert "core layer 1" in idle.sentence
    for value in (math.nan, math.inf, -math.inf):
        broken = only(judge(HEALTHY | {records.state_norm(3): value}, step=3))
        assert (broken.name, broken.figure) == ("not_finite", 1.0)
        assert records.state_norm(3) in broken.sentence


def test_a_metric_that_is_nan_raises_one_alarm() -> None:
    broken = HEALTHY | {
        name: math.nan for name in HEALTHY if name.startswith(("loop/token", "loop/relative", "loop/loss", "halting"))
    }
    assert only(judge(broken, broken)).name == "not_finite"


def test_a_depth_of_one_loop_is_not_an_ignored_state() -> None:
    shallow = {name: value for name, value in HEALTHY.items() if not name.endswith(("1", "2", "3", "4", "5"))}
    shallow[records.loss_at(1)] = 4.0
    assert raised([shallow, shallow], 100, run_config("depth.mean=1", *FEW)) == []
