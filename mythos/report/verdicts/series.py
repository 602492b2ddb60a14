"""What the verdicts read from a run's series: values at the end and over the last quarter."""

import numpy as np

from mythos.report.read import Run, Series

_LAST_SHARE = 0.25


def last(series: Series) -> float:
    """The last finite value; NaN without one."""
    finite = series.values[np.isfinite(series.values)]
    return float(finite[-1]) if len(finite) else float("nan")


def late_mean(series: Series | None) -> float | None:
    """The mean of the finite values in the last quarter of the series' steps; None without any."""
    if series is None:
        return None
    late = series.values[series.steps > (1 - _LAST_SHARE) * series.steps[-1]]
    finite = late[np.isfinite(late)]
    return float(finite.mean()) if len(finite) else None


def last_step(run: Run) -> int:
    """The step of the last line of metrics."""
    return int(run.series["time"].steps[-1])


def num_events(run: Run, names: tuple[str, ...]) -> int:
    """How often any of these metrics was logged as other than zero."""
    shown = [run.series[name].values for name in names if name in run.series]
    return int(sum(np.count_nonzero(np.nan_to_num(values)) for values in shown))
