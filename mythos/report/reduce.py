"""Reduction of long series to a number of points that can be drawn, and smoothing of noisy ones."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mythos.report.read import Series

Floats = npt.NDArray[np.float64]

_HALF_WIDTH = 0.02
"""Half width of the running mean of ``smoothed``, as a share of the series."""
_LAST_SHARE = 0.25
"""Share of the run's steps, at its end, over which a quantity of the loops is averaged."""


def thin(values: Floats, limit: int) -> npt.NDArray[np.intp]:
    """At most ``limit`` (4 or more) indices: the first, the last, and the two extremes of each stretch."""
    if len(values) <= limit:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), (limit - 2) // 2 + 1).astype(int)
    finite = np.isfinite(values)
    low, high = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
    kept = {0, len(values) - 1}
    for start, stop in pairwise(edges):
        kept |= {start + int(low[start:stop].argmin()), start + int(high[start:stop].argmax())}
    return np.array(sorted(kept))


def smoothed(series: Series) -> Series:
    """The running mean over a 25th of the series."""
    return Series(series.steps, smooth(series.values, round(_HALF_WIDTH * len(series.values))))


def smooth(values: Floats, half_width: int) -> Floats:
    """Running mean over ``half_width`` values to either side; values that are not finite are left out.

    The window narrows towards the start, where a loss falls fast, and is cut off at the end.
    """
    index = np.arange(len(values))
    half = np.minimum(index, half_width)
    start, stop = index - half, np.minimum(index + half + 1, len(values))
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    num_values = count[stop] - count[start]
    return np.where(num_values > 0, (total[stop] - total[start]) / np.maximum(num_values, 1), np.nan)


def table(rows: list[Series], limit: int) -> tuple[Floats, Floats]:
    """Several series as one matrix, neighbouring steps averaged until at most ``limit`` columns are left.

    Returns:
        steps [columns], the mean step of each column, and values [rows, columns], NaN where there is none.
    """
    steps = np.unique(np.concatenate([row.steps for row in rows]))
    num_columns = min(limit, len(steps))
    column_of = np.arange(len(steps)) * num_columns // len(steps)
    matrix = np.full((len(rows), num_columns), np.nan)
    for line, row in zip(matrix, rows, strict=True):
        finite = np.isfinite(row.values)
        column = column_of[np.searchsorted(steps, row.steps[finite])]
        count = np.bincount(column, minlength=num_columns)
        total = np.bincount(column, weights=row.values[finite], minlength=num_columns)
        line[count > 0] = (total / np.maximum(count, 1))[count > 0]
    return np.bincount(column_of, weights=steps) / np.bincount(column_of), matrix


class Quarters(NamedTuple):
    """Means of a quantity of the loops over parts of the run, one column for each part."""

    loops: list[int]
    steps: Floats
    """Mean step of each part, ``[parts]``."""
    values: Floats
    """``[loops, parts]``."""


def quarters(loops: dict[int, Series], num_parts: int = 4) -> Quarters:
    """Means over equal parts of the measurements, all loops and all parts at equal depth.

    A measurement with few loops has no value for the deeper ones, so means over all measurements would compare one
    loop's with another's of other steps. Shown are the loops that more than half of the measurements of every part
    ran; measurements of fewer loops are left out.

    Returns:
        No loops if there are no finite values.
    """
    if not loops:
        return Quarters([], np.zeros(0), np.zeros((0, 0)))
    steps, values = table(list(loops.values()), sum(len(series.steps) for series in loops.values()))
    depth = np.isfinite(values).cumprod(0).sum(0)
    steps, values, depth = steps[depth > 0], values[:, depth > 0], depth[depth > 0]
    parts = [part for part in np.array_split(np.arange(len(steps)), num_parts) if len(part)]
    common = min((int(np.sort(depth[part])[::-1][len(part) // 2]) for part in parts), default=0)
    kept = [part[depth[part] >= common] for part in parts]
    means = [values[:common, part].mean(1) for part in kept]
    return Quarters(
        list(loops)[:common],
        np.array([steps[part].mean() for part in kept]),
        np.stack(means, axis=1) if means else np.zeros((0, 0)),
    )


def at_the_end(loops: dict[int, Series]) -> Series:
    """Each loop's mean over the last quarter of the run's steps, as a series over the loops, all at equal depth.

    See ``quarters`` for the loops and measurements that are left out.
    """
    start = (1 - _LAST_SHARE) * max((series.steps[-1] for series in loops.values()), default=0)
    late = {
        loop: Series(series.steps[series.steps > start], series.values[series.steps > start])
        for loop, series in loops.items()
    }
    result = quarters({loop: series for loop, series in late.items() if len(series.steps)}, 1)
    return Series.of(result.loops, result.values[:, 0].tolist() if result.loops else [])
