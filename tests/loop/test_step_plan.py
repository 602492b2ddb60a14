import pytest

from mythos.config.halting import ActHalting, FixedHalting, PonderHalting
from mythos.loop.plan import halting_weight


def test_the_halting_weight_rises_and_then_moves_to_its_final_value() -> None:
    config = PonderHalting(weight=0.1, final_weight=0.05, num_warmup_steps=9)
    assert halting_weight(config, 0, 101) == pytest.approx(0.01)
    assert halting_weight(config, 50, 101) == pytest.approx(0.075)
    assert halting_weight(config, 100, 101) == pytest.approx(0.05)
    assert halting_weight(ActHalting(weight=0.02), 0, 10) == 0.02
    assert halting_weight(FixedHalting(), 5, 10) == 0
