"""Draw (T, k) as a pure function of (config, seed, step), the same on every rank."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mythos.config.depth import DepthConfig
from mythos.loop.curriculum import grad_loops_at, mean_at
from mythos.loop.distribution import probabilities

_STEPS = 0xDE97  # keeps this stream apart from every other use of the run's seed
_SEQUENCES = 0xDE98


class Depth(NamedTuple):
    """Number of loops, and how many of the last ones keep gradients."""

    num_loops: int
    num_grad_loops: int


def draw(config: DepthConfig, seed: int, step: int) -> Depth:
    """Draw T and k of one optimiser step; all its micro-batches share them."""
    num_loops = int(_inverse(config, mean_at(config, step), _uniforms(seed, _STEPS, step, 1))[0])
    return Depth(num_loops, min(num_loops, grad_loops_at(config, step)))


def draw_many(config: DepthConfig, seed: int, first_step: int, num_steps: int) -> np.ndarray:
    """Draw T of consecutive steps, ``[num_steps]`` int64; equal to ``draw`` for each step."""
    uniforms = _uniforms(seed, _STEPS, first_step, num_steps)
    means = np.array([mean_at(config, step) for step in range(first_step, first_step + num_steps)])
    loops = np.empty(num_steps, dtype=np.int64)
    for mean in np.unique(means):
        loops[means == mean] = _inverse(config, float(mean), uniforms[means == mean])
    return loops


def draw_rows(config: DepthConfig, seed: int, step: int, sample_ids_B: np.ndarray) -> np.ndarray:
    """Draw T of each sequence, ``[B]`` int64, by its sample id alone; the step enters through the curriculum only.

    Each row keeps the gradients of its last min(T, ``grad_loops_at(config, step)``) loops.
    """
    uniforms = [_uniforms(seed, _SEQUENCES, int(sample_id), 1)[0] for sample_id in sample_ids_B]
    return _inverse(config, mean_at(config, step), np.array(uniforms))


def distribution(config: DepthConfig, step: int | None = None) -> np.ndarray:
    """Return the probabilities of T = 1, 2, ... in a step, which sum to one. None ignores the curriculum."""
    return probabilities(config, mean_at(config, step))


def mean_depth(config: DepthConfig, step: int | None = None) -> tuple[float, float]:
    """Return the expected loops, and loops with gradients, of a training step. None ignores the curriculum."""
    mass = distribution(config, step)
    loops = np.arange(1, len(mass) + 1)
    return float(mass @ loops), float(mass @ np.minimum(loops, grad_loops_at(config, step)))


def _inverse(config: DepthConfig, mean: float, uniforms: np.ndarray) -> np.ndarray:
    """Return the T, int64, at which the cumulative distribution exceeds each uniform number."""
    return np.searchsorted(_cumulative(config, mean)[:-1], uniforms, side="right").astype(np.int64) + 1


@lru_cache(maxsize=64)
def _cumulative(config: DepthConfig, mean: float) -> np.ndarray:
    return np.cumsum(probabilities(config, mean))


def _uniforms(seed: int, stream: int, first: int, num: int) -> np.ndarray:
    """Return uniform numbers in [0, 1] of ``num`` consecutive counters, from a counter-based generator (Philox).

    It has no state. A counter yields four words, of which the first one is used.
    """
    generator = np.random.Philox(key=[seed, stream], counter=[first, 0, 0, 0])
    return generator.random_raw(4 * num)[::4] / 2.0**64
