import math

import numpy as np
import pytest
from scipy import integrate, stats

from mythos.config.depth import ChoiceDepth, DepthConfig, LogNormalPoissonDepth, PoissonDepth, UniformDepth
from mythos.loop.distribution import probabilities
from mythos.loop.policy import distribution, mean_depth


def test_poisson_is_clamped_to_its_bounds() -> None:
    result = distribution(PoissonDepth(mean=3.0, max_loops=4))
    poisson = stats.poisson(3.0)
    expected = [poisson.cdf(1), poisson.pmf(2), poisson.pmf(3), poisson.sf(3)]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert distribution(PoissonDepth(mean=1.0, max_loops=1)).tolist() == [1.0]


@pytest.mark.parametrize(("mean", "sigma"), [(32.0, 0.5), (8.0, 0.5), (64.0, 1.0), (4.0, 0.1), (8.0, 2.0)])
def test_lognormal_poisson_is_the_integral(mean: float, sigma: float) -> None:
    def integrand(z: float, count: int) -> float:
        return float(stats.norm.pdf(z) * stats.poisson.pmf(count, math.exp(math.log(mean) - sigma**2 / 2 + sigma * z)))

    result = distribution(LogNormalPoissonDepth(mean=mean, sigma=sigma, max_loops=500))
    for count in (0, 1, 5, 20, 60, 450):
        at_peak = (math.log(max(count, 1) / mean) + sigma**2 / 2) / sigma
        points = [at_peak] if abs(at_peak) < 9 else None
        expected, _ = integrate.quad(integrand, -9, 9, (count,), epsabs=1e-14, epsrel=1e-12, limit=500, points=points)
        assert result[count] == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_lognormal_poisson_has_the_moments_of_its_formula() -> None:
    mean, sigma = 32.0, 0.5
    mass = distribution(LogNormalPoissonDepth(mean=mean, sigma=sigma, max_loops=1000))
    loops = np.arange(1, 1001)
    assert mass @ loops == pytest.approx(mean + 1, rel=1e-9)
    variance = mean + mean**2 * math.expm1(sigma**2)
    assert mass @ (loops - mean - 1) ** 2 == pytest.approx(variance, rel=1e-7)


def test_huginn_numbers() -> None:
    mass = distribution(LogNormalPoissonDepth(mean=32.0, num_grad_loops=8))
    assert (int(np.searchsorted(np.cumsum(mass), 0.5)) + 1, int(mass.argmax()) + 1) == (29, 23)
    assert mean_depth(LogNormalPoissonDepth(mean=32.0, num_grad_loops=8))[0] == pytest.approx(33, abs=0.05)


def test_uniform_and_choice_have_their_probabilities() -> None:
    np.testing.assert_allclose(distribution(UniformDepth(min_loops=3, max_loops=5)), [0, 0, 1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(distribution(ChoiceDepth(choices=(1, 4), weights=(1.0, 3.0))), [0.25, 0, 0, 0.75])
    assert ChoiceDepth(choices=(1, 4), weights=(1.0, 3.0)).mean == 3.25


@pytest.mark.parametrize(
    "config",
    [UniformDepth(min_loops=2, max_loops=12), ChoiceDepth(choices=(2, 3, 8, 12), weights=(1.0, 4.0, 2.0, 1.0))],
)
@pytest.mark.parametrize("mean", [2.0, 2.001, 3.0, 7.0, 11.0, 12.0])
def test_a_tilted_distribution_keeps_its_values_and_has_the_given_mean(config: DepthConfig, mean: float) -> None:
    mass = probabilities(config, mean)
    assert mass.sum() == pytest.approx(1, abs=1e-12)
    assert mass @ np.arange(1, 13) == pytest.approx(mean, rel=1e-9)
    possible = distribution(config) > 0
    assert not mass[~possible].any()
    if 2 < mean < 12:
        # weights * exp(tilt * loops): the log-ratio to the weights is a straight line
        loops = np.arange(1, 13)[possible]
        slopes = np.diff(np.log(mass[possible] / distribution(config)[possible])) / np.diff(loops)
        np.testing.assert_allclose(slopes, slopes[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        PoissonDepth(mean=8.0, max_loops=16),
        LogNormalPoissonDepth(mean=8.0, max_loops=16),
        UniformDepth(max_loops=16),
        ChoiceDepth(choices=(1, 2, 16)),
    ],
    ids=lambda config: config.kind,
)
def test_a_larger_mean_makes_no_T_above_any_bound_less_likely(config: DepthConfig) -> None:
    cumulative = np.array([np.cumsum(probabilities(config, mean)) for mean in np.linspace(1, 16, 46)])
    assert (np.diff(cumulative, axis=0) <= 1e-12).all()
