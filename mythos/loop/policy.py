"""How deep a step thinks: (T, k) as a pure function of (config, seed, step), the same on every rank."""

import math
from typing import NamedTuple

import numpy as np

from mythos.config.depth import DepthConfig, FixedDepth, PoissonDepth

_STREAM = 0xDE97  # keeps this stream apart from every other use of the run's seed


class Depth(NamedTuple):
    """Loops to run, and how many of the last ones keep gradients."""

    num_loops: int
    num_grad_loops: int


def draw(config: DepthConfig, seed: int, step: int) -> Depth:
    """The depth of one optimiser step; all its micro-batches share it."""
    probabilities = distribution(config)
    num_loops = int(np.searchsorted(np.cumsum(probabilities)[:-1], _uniform(seed, step), side="right")) + 1
    return Depth(num_loops, min(num_loops, config.grad_loops))


def distribution(config: DepthConfig) -> np.ndarray:
    """Probability of T = 1, 2, ...; sums to one."""
    match config:
        case FixedDepth(num_loops=num_loops):
            return np.eye(num_loops)[-1]
        case PoissonDepth(mean=mean, max_loops=max_loops):
            counts = np.arange(max_loops + 1)
            log_factorial = np.array([math.lgamma(count + 1) for count in counts])
            mass = np.exp(counts * math.log(mean) - mean - log_factorial)
            inside = mass[1:].copy()
            inside[0] += mass[0]
            inside[-1] += max(0.0, 1.0 - mass.sum())
            return inside / inside.sum()


def mean_depth(config: DepthConfig) -> tuple[float, float]:
    """Expected loops, and expected loops with gradients, in a training step."""
    probabilities = distribution(config)
    loops = np.arange(1, len(probabilities) + 1)
    return float(probabilities @ loops), float(probabilities @ np.minimum(loops, config.grad_loops))


def _uniform(seed: int, step: int) -> float:
    """One number in [0, 1) from a counter-based generator (Philox), so that no state is carried."""
    generator = np.random.Philox(key=[seed, _STREAM], counter=[step, 0, 0, 0])
    return int(generator.random_raw()) / 2.0**64
