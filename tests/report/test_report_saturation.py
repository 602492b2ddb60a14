import numpy as np
import pytest
from scipy.optimize import curve_fit

from mythos.report.saturation import fit

NUM_LOOPS = np.array([1, 2, 4, 8, 12, 16, 32], dtype=float)


@pytest.mark.parametrize("rate", [0.1, 1.0, 5.0, 25.0])
def test_an_exact_curve_is_recovered(rate: float) -> None:
    losses = 2.9 + 0.3 * np.exp(-rate * NUM_LOOPS / 8)
    result = fit(NUM_LOOPS, losses, mean_depth=8)
    assert result[:4] == pytest.approx((2.9, 0.3, rate, 8), rel=1e-4)
    assert result.error < 1e-6
    np.testing.assert_allclose(result.at(NUM_LOOPS), losses, rtol=1e-6)


def test_noisy_losses_give_the_least_squares_of_scipy() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, len(NUM_LOOPS))
    losses = 2.9 + 0.3 * np.exp(-2 * NUM_LOOPS / 8) + noise

    def curve(num_loops: np.ndarray, floor: float, amplitude: float, rate: float) -> np.ndarray:
        return floor + amplitude * np.exp(-rate * num_loops / 8)

    expected, _ = curve_fit(curve, NUM_LOOPS, losses, p0=(3, 0.2, 1), xtol=1e-12)
    result = fit(NUM_LOOPS, losses, mean_depth=8)
    assert result[:3] == pytest.approx(expected, rel=1e-4)
    assert result.error == pytest.approx(np.sqrt(np.mean((losses - curve(NUM_LOOPS, *expected)) ** 2)), rel=1e-6)


@pytest.mark.parametrize(
    "losses",
    [
        3 - 0.01 * NUM_LOOPS,  # a straight line
        3 + 0.2 * np.exp(-20 * NUM_LOOPS),  # flat after one loop
        3 - 0.3 * np.exp(-NUM_LOOPS / 4),  # rises
        np.where(NUM_LOOPS == 4, np.nan, 3.0),
    ],
)
def test_losses_that_do_not_saturate_have_no_fit(losses: np.ndarray) -> None:
    assert fit(NUM_LOOPS, losses, mean_depth=8) is None


def test_three_loop_counts_are_too_few_for_three_parameters() -> None:
    assert fit(NUM_LOOPS[:3], 3 + np.exp(-NUM_LOOPS[:3]), mean_depth=8) is None


def test_a_floor_above_a_measured_loss_is_no_fit() -> None:
    """The best curve of these losses has its floor at 4.1206, above the 4.118 that were measured at T = 8."""
    num_loops = np.array([1, 2, 4, 8, 16], dtype=float)
    assert fit(num_loops, np.array([4.16, 4.13, 4.119, 4.118, 4.125]), mean_depth=8) is None
    assert fit(num_loops, 4.118 + 0.05 * np.exp(-num_loops / 2), mean_depth=8).floor == pytest.approx(4.118, abs=1e-6)


@pytest.mark.parametrize(("size", "is_drawn"), [(0.03, True), (0.04, False)])
def test_a_curve_that_misses_the_losses_is_no_fit(size: float, is_drawn: bool) -> None:
    """The limit of a tenth of the losses' range lies between the two: 0.084 and 0.105."""
    losses = 2.9 + 0.3 * np.exp(-NUM_LOOPS / 8) + size * np.array([1, -1, 1, -1, 1, -1, -1])
    assert (fit(NUM_LOOPS, losses, mean_depth=8) is not None) == is_drawn
