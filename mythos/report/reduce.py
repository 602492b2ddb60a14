"""Reduction of long series to a number of points that can be drawn, and smoothing of noisy ones."""

from itertools import pairwise

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


def at_the_end(loops: dict[int, Series]) -> Series:
    """Each loop's mean over the last quarter of the run, as a series over the loops.

    A loop that no step ran in that quarter is left out, since its last value is from an earlier part of the run.
    """
    start = (1 - _LAST_SHARE) * max((series.steps[-1] for series in loops.values()), default=0)
    late = {loop: series.values[(series.steps > start) & np.isfinite(series.values)] for loop, series in loops.items()}
    means = {loop: float(values.mean()) for loop, values in late.items() if len(values)}
    return Series.of(list(means), list(means.values()))
