import math
from statistics import fmean, pstdev

import pytest

from mythos.config.guard import GuardConfig
from mythos.optim.spikes import judge

CONFIG = GuardConfig(sigmas=6.0, window=8, num_history_steps=4)
LOSSES, NORMS = [3.0, 3.1, 2.9, 3.2, 2.8], [1.0, 1.5, 0.5, 1.2, 0.8]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)])
def test_what_is_not_finite_is_skipped_without_any_history(loss: float, norm: float) -> None:
    verdict = judge(loss, norm, [], [], CONFIG)
    assert verdict is not None
    assert verdict.reason == "not_finite"


def test_a_spike_lies_six_deviations_above_the_mean() -> None:
    limit = fmean(LOSSES) + 6 * pstdev(LOSSES)
    assert judge(limit - 1e-9, 1.0, LOSSES, NORMS, CONFIG) is None
    verdict = judge(limit + 1e-9, 1.0, LOSSES, NORMS, CONFIG)
    assert verdict is not None
    assert verdict == ("loss_spike", limit + 1e-9, pytest.approx(limit))
    norm_limit = fmean(NORMS) + 6 * pstdev(NORMS)
    verdict = judge(3.0, norm_limit * 1.001, LOSSES, NORMS, CONFIG)
    assert verdict is not None
    assert verdict.reason == "gradient_spike"


def test_a_fall_is_no_spike_and_a_short_history_has_none() -> None:
    assert judge(0.1, 1e-9, LOSSES, NORMS, CONFIG) is None
    assert judge(1e9, 1e9, LOSSES[:3], NORMS[:3], CONFIG) is None
    assert judge(1e9, 1e9, LOSSES, NORMS, GuardConfig(sigmas=None)) is None


def test_a_flat_stretch_makes_ordinary_steps_no_spikes() -> None:
    assert judge(3.0 * 1.11, 1.0, [3.0] * 8, [1.0] * 8, CONFIG) is None
    assert judge(3.0 * 1.13, 1.0, [3.0] * 8, [1.0] * 8, CONFIG) is not None


def test_a_history_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_history_steps is 9 but window is 8"):
        GuardConfig(window=8, num_history_steps=9)
