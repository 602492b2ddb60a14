import numpy as np
import pytest
from scipy.optimize import curve_fit

from mythos.report.saturation import fit

DEPTHS = np.array([1, 2, 4, 8, 12, 16, 32], dtype=float)


@pytest.mark.parametrize("rate", [0.1, 1.0, 5.0, 25.0])
def test_an_exact_curve_is_found_again(rate: float) -> None:
    losses = 2.9 + 0.3 * np.exp(-rate * DEPTHS / 8)
    found = fit(DEPTHS, losses, mean_depth=8)
    assert found[:4] == pytest.approx((2.9, 0.3, rate, 8), rel=1e-4)
    assert found.error < 1e-6
    np.testing.assert_allclose(found.at(DEPTHS), losses, rtol=1e-6)


def test_noisy_losses_give_the_least_squares_of_scipy() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, len(DEPTHS))
    losses = 2.9 + 0.3 * np.exp(-2 * DEPTHS / 8) + noise

    def curve(depths: np.ndarray, floor: float, amplitude: float, rate: float) -> np.ndarray:
        return floor + amplitude * np.exp(-rate * depths / 8)

    expected, _ = curve_fit(curve, DEPTHS, losses, p0=(3, 0.2, 1), xtol=1e-12)
    found = fit(DEPTHS, losses, mean_depth=8)
    assert found[:3] == pytest.approx(expected, rel=1e-4)
    assert found.error == pytest.approx(np.sqrt(np.mean((losses - curve(DEPTHS, *expected)) ** 2)), rel=1e-6)


@pytest.mark.parametrize(
    "losses",
    [
        3 - 0.01 * DEPTHS,  # falls for ever
        3 + 0.2 * np.exp(-20 * DEPTHS),  # over after one pass
        3 - 0.3 * np.exp(-DEPTHS / 4),  # rises
        np.where(DEPTHS == 4, np.nan, 3.0),
    ],
)
def test_losses_that_do_not_saturate_over_the_depths_have_no_fit(losses: np.ndarray) -> None:
    assert fit(DEPTHS, losses, mean_depth=8) is None


def test_three_depths_are_too_few_for_three_numbers() -> None:
    assert fit(DEPTHS[:3], 3 + np.exp(-DEPTHS[:3]), mean_depth=8) is None
