"""Choose the source of each sample so that every prefix of the stream meets the weights exactly."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


class Mixture:
    """Interleaves sources so that no prefix deviates by a whole sample; a pure function of the sample index.

    After n samples, the count of a source is its share of them (the sum of its weights so far, each stage's weights
    divided by their sum), rounded down or up.

    Args:
        stages: first sample and integer weights [K] of each stage; the first begins at 0, and each later one a whole
            number of cycles (sums of weights) after the previous one.
    """

    def __init__(self, stages: Sequence[tuple[int, Sequence[int]]]) -> None:
        self._starts = np.array([start for start, _ in stages], np.int64)
        self._weights = [np.array(weights, np.int64) for _, weights in stages]
        self._cycles = [_interleave(tuple(weights)) for _, weights in stages]
        self._base = [np.zeros_like(self._weights[0])]
        for length, weights in zip(np.diff(self._starts), self._weights[:-1], strict=True):
            num_cycles, rest = divmod(int(length), int(weights.sum()))
            assert num_cycles > 0
            assert rest == 0
            self._base.append(self._base[-1] + num_cycles * weights)

    def locate(self, sample_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the source of each sample and the number of earlier samples of that source, both int64 [B]."""
        source_B, index_B = np.empty_like(sample_B), np.empty_like(sample_B)
        stage_B = np.searchsorted(self._starts, sample_B, side="right") - 1
        for stage in np.unique(stage_B):
            inside_B = stage_B == stage
            order, rank = self._cycles[stage]
            cycle, offset = np.divmod(sample_B[inside_B] - self._starts[stage], len(order))
            source = order[offset]
            source_B[inside_B] = source
            index_B[inside_B] = self._base[stage][source] + cycle * self._weights[stage][source] + rank[offset]
        return source_B, index_B

    def counts(self, num_samples: int) -> np.ndarray:
        """Return how many of the first ``num_samples`` samples come from each source, int64 [K]."""
        stage = int(np.searchsorted(self._starts, num_samples, side="right")) - 1
        order, _ = self._cycles[stage]
        num_cycles, rest = divmod(num_samples - int(self._starts[stage]), len(order))
        part = np.bincount(order[:rest], minlength=len(self._weights[stage]))
        return self._base[stage] + num_cycles * self._weights[stage] + part


@lru_cache
def _interleave(weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return one cycle of sources [D], D the sum of weights, and how often each source occurred before [D].

    The j-th sample of a source with share w is eligible once n w > j - 1 and due once n w >= j. Serving the earliest
    deadline among the eligible sources meets all deadlines (Steiner and Yeomans 1993; Tijdeman's theorem of 1980
    shows that this is possible).
    """
    cycle = sum(weights)
    counts = [0] * len(weights)
    order, rank = np.empty(cycle, np.int64), np.empty(cycle, np.int64)
    used = [source for source, weight in enumerate(weights) if weight]
    for offset in range(cycle):
        _, source = min(
            (-(-(counts[source] + 1) * cycle // weights[source]), source)
            for source in used
            if counts[source] * cycle < (offset + 1) * weights[source]
        )
        order[offset], rank[offset] = source, counts[source]
        counts[source] += 1
    return order, rank
