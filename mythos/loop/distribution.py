"""Exact probabilities of T for each kind of depth policy, at any mean of a curriculum."""

import math

import numpy as np

from mythos.config.depth import ChoiceDepth, DepthConfig, FixedDepth, LogNormalPoissonDepth, PoissonDepth, UniformDepth


def probabilities(config: DepthConfig, mean: float) -> np.ndarray:
    """Return the probabilities of T = 1, 2, ..., ``config.max_loops`` with another mean; they sum to one."""
    match config:
        case FixedDepth(num_loops=num_loops):
            return np.eye(num_loops)[-1]
        case PoissonDepth(max_loops=max_loops):
            mass = _poisson(np.array([mean]), max_loops + 1)[:, 0]
            return _clamped(np.append(mass[0] + mass[1], mass[2:]))  # a draw of 0 counts as 1
        case LogNormalPoissonDepth(sigma=sigma, max_loops=max_loops):
            return _clamped(_lognormal_poisson(mean, sigma, max_loops))
        case UniformDepth(min_loops=min_loops, max_loops=max_loops):
            loops = np.arange(min_loops, max_loops + 1)
            return _spread(loops, _tilted(loops, np.ones(len(loops)), mean))
        case ChoiceDepth(choices=choices, weights=weights):
            loops = np.array(choices)
            return _spread(loops, _tilted(loops, np.array(weights or np.ones(len(loops))), mean))


def _poisson(rates_R: np.ndarray, num_counts: int) -> np.ndarray:
    """Return Poisson probabilities of 0, ..., num_counts - 1 at each rate, ``[num_counts, R]``."""
    counts = np.arange(num_counts)[:, None]
    log_factorials = np.array([[math.lgamma(count + 1)] for count in range(num_counts)])
    return np.exp(counts * np.log(rates_R) - rates_R - log_factorials)


def _lognormal_poisson(mean: float, sigma: float, num_counts: int) -> np.ndarray:
    """Integral over z ~ N(0, 1) of Poisson(n; exp(log(mean) - sigma^2 / 2 + sigma z)), n = 0, ..., num_counts - 1.

    Equally spaced points: under a Gaussian, the error of an analytic integrand falls exponentially with their number,
    once they are closer than the narrowest peak, 1 / (sigma sqrt(n)). Gauss-Hermite nodes spread too far for it: 200
    of them err by 7e-5 at mean 64, sigma 1.
    """
    spacing = min(0.05, 0.6 / (sigma * math.sqrt(num_counts)))
    num_points = 2 * math.ceil(9 / spacing) + 1
    z = np.linspace(-9, 9, num_points)
    weights = np.exp(-0.5 * z**2)
    rates = np.exp(math.log(mean) - 0.5 * sigma**2 + sigma * z)
    return _poisson(rates, num_counts) @ (weights / weights.sum())


def _clamped(mass: np.ndarray) -> np.ndarray:
    """Return the distribution with the mass beyond the last count added to the last count."""
    mass = np.append(mass[:-1], mass[-1] + max(0.0, 1.0 - mass.sum()))
    return mass / mass.sum()


def _spread(loops: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return masses at given T as a distribution over T = 1, 2, ...; ``loops`` ascends."""
    spread = np.zeros(loops[-1])
    spread[loops - 1] = masses
    return spread


def _tilted(loops: np.ndarray, weights: np.ndarray, mean: float) -> np.ndarray:
    """Return probabilities in proportion to weights * exp(tilt * loops), with the tilt that gives the mean ``mean``.

    Of all distributions over ``loops`` with that mean, this one has the least Kullback-Leibler divergence from the
    weights, and a larger mean makes every set of larger T likelier.
    """
    plain = weights / weights.sum()
    if math.isclose(plain @ loops, mean, rel_tol=1e-12):
        return plain
    low, high = -64.0, 64.0  # beyond them every value but the outermost has a mass below 1e-27
    for _ in range(80):
        middle = (low + high) / 2
        exponents = np.log(weights) + middle * (loops - loops[0])
        masses = np.exp(exponents - exponents.max())
        masses /= masses.sum()
        low, high = (middle, high) if masses @ loops < mean else (low, middle)
    return masses
