import pytest
from helpers import run_config

from mythos.callbacks.alarms import raised
from mythos.callbacks.routing_alarm import collapsed_routing
from mythos.config import records

MIXTURE = ("model.core_ffn.num_experts=64", "model.core_ffn.num_active=8", "depth.mean=3", "run.num_steps=400")


def loads(first: float, second: float, num_loops: int = 6) -> dict[str, float]:
    """Telemetry of two layers, whose loops beyond the mean depth are as uneven as possible."""
    return {
        records.load_violation(layer, loop): value if loop < 3 else 7.0
        for layer, value in enumerate((first, second))
        for loop in range(num_loops)
    }


def test_the_most_uneven_layer_is_judged_by_its_frequent_loops() -> None:
    alarm = collapsed_routing(loads(0.7, 2.8), run_config(*MIXTURE, "telemetry.alarms.collapsed_routing=0.3"))
    assert alarm is not None
    assert (alarm.figure, alarm.limit) == (pytest.approx(0.4), 0.3)
    assert "core layer 1 has collapsed" in alarm.sentence
    assert collapsed_routing({}, run_config(*MIXTURE)) is None
    assert collapsed_routing(loads(7.0, 7.0), run_config("model=debug-dense")) is None


def test_the_alarm_needs_three_records_above_the_limit() -> None:
    config = run_config(*MIXTURE)
    collapsed, recovering = ({records.token_correlation(0): 0.3} | loads(each, 1.0) for each in (6.5, 5.2))
    assert raised([collapsed] * 2, 100, config) == []
    assert raised([collapsed, collapsed, recovering], 100, config) == []
    (alarm,) = raised([recovering, *[collapsed] * 3], 100, config)
    assert alarm.name == "collapsed_routing"
    assert alarm.figure == pytest.approx(6.5 / 7)
    assert "core layer 0 has collapsed: its load violation is 93% of the largest possible, above 75%" in alarm.sentence


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("balance=none",), "balance is none and nothing balances the experts; set balance=quantile."),
        (("balance=sign",), "balance=sign moves the selection bias by 0.001 a step, which a new model outruns; set"),
        (("optim=adamw", "optim.lr=2e-3"), "lower optim.lr (0.002) or lengthen schedule.num_warmup_steps (60)."),
    ],
)
def test_the_sentence_names_the_key_to_change(options: tuple[str, ...], advice: str) -> None:
    alarm = collapsed_routing(loads(7.0, 7.0), run_config(*MIXTURE, *options))
    assert alarm is not None
    assert advice in alarm.sentence
