"""Ranges of samples that the stream skips, and the mapping from positions to the remaining samples."""

from collections.abc import Iterable

import numpy as np

from mythos.config.base import ConfigError

Ranges = tuple[tuple[int, int], ...]
"""Half-open [start, end) ranges of global sample indices, ascending and disjoint, with gaps between them."""


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same set of indices as the fewest ranges."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((int(start), int(end)) for start, end in ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def sample_at(position_B: np.ndarray, skipped: Ranges) -> np.ndarray:
    """Global sample index at each position of the stream, which holds the indices outside ``skipped`` in order."""
    sample_B = position_B.copy()
    for start, end in skipped:
        sample_B[sample_B >= start] += end - start
    return sample_B


def add(skipped: Ranges, new: Iterable[tuple[int, int]], position: int) -> Ranges:
    """Merge ``skipped`` and the ``new`` ranges, for a stream whose first ``position`` samples have been used.

    Raises:
        ConfigError: a new range holds a sample that has been trained on.
    """
    merged = merge([*skipped, *new])
    if position:
        last = np.array([position - 1])
        used = int(sample_at(last, skipped)[0])
        if sample_at(last, merged)[0] != used:
            raise ConfigError(
                f"data.skipped is {list(new)}, but samples up to {used} have been trained on; resume from a "
                f"checkpoint before the range, or skip from {used + 1} on."
            )
    return merged
