"""Verdicts on gradients and updates, and on speed."""

import math

import numpy as np

from mythos.config import records
from mythos.report.read import Run, by_index, with_prefix
from mythos.report.reduce import smoothed
from mythos.report.verdicts.check import Check, Verdict, judge
from mythos.report.verdicts.series import last, late_mean

GRADIENT_GROWTH = (3.0, 10.0)
"""Last gradient norm, smoothed, over the median of the second half of the run: amber, red."""
GRADIENT_SPAN = (1e3, 1e5)
"""Largest over smallest gradient norm with respect to the states of two loops."""
LARGEST_UPDATE = (0.05, 0.2)
"""Relative size of an update."""
LOGIT_NATS = (10.0, 30.0)
"""Log-partition of the logits above that of equal logits of zero, in nats."""
DATA_WAIT = (0.05, 0.2)
"""Share of the time spent waiting for data."""
SLOWDOWN = (0.7, 0.4)
"""Loops per second in the last quarter over the median of the run: amber and red below."""
LOW_MFU = 0.1
"""Model FLOPs utilisation: amber below."""


def gradients(run: Run) -> Verdict | None:
    """Whether gradients keep their size over the run and over the loops, and updates and logits stay small."""
    return judge((_gradient_growth(run), _gradient_span(run), _largest_update(run), _logits(run)))


def speed(run: Run) -> Verdict | None:
    """Whether the devices are kept busy."""
    return judge((_data_wait(run), _slowdown(run), _slowest_rank(run), _utilisation(run)))


def _gradient_growth(run: Run) -> Check | None:
    norms = run.series.get(records.GRAD_NORM)
    if norms is None:
        return None
    second_half = norms.values[len(norms.values) // 2 :]
    finite = second_half[np.isfinite(second_half)]
    factor = float(smoothed(norms).values[-1] / np.median(finite)) if len(finite) else math.nan
    if not math.isfinite(norms.values[-1]):
        factor = math.nan
    finding = f"the gradient norm is {factor:.2g} times its median in the second half of the run"
    return Check(finding, factor, *GRADIENT_GROWTH, "lower optim.lr or optim.clip_norm")


def _gradient_span(run: Run) -> Check | None:
    loops = by_index(run.series, records.gradient_norm)
    steps = [series.steps[-1] for series in loops.values()]
    values = [series.values[-1] for series in loops.values() if series.steps[-1] == max(steps)]
    if len(values) < 2 or min(values) <= 0:
        return None
    span = float(max(values) / min(values))
    finding = f"over the loops the gradient spans a factor of {span:.2g}"
    return Check(finding, span, *GRADIENT_SPAN, "lower depth.num_grad_loops")


def _largest_update(run: Run) -> Check | None:
    updates = {group: last(series) for group, series in with_prefix(run, records.group_update_norm("")).items()}
    if not updates:
        return None
    group = max(updates, key=lambda group: updates[group])
    finding = f"the largest update, of {group}, changes its weights by {100 * updates[group]:.2g}% a step"
    return Check(finding, updates[group], *LARGEST_UPDATE, "lower optim.lr", is_share=True)


def _logits(run: Run) -> Check | None:
    if records.LOG_PARTITION not in run.series:
        return None
    above = last(run.series[records.LOG_PARTITION]) - math.log(run.config.model.vocab_size)
    finding = f"the log-partition of the logits is {above:.2g} nats above that of equal logits"
    return Check(finding, above, *LOGIT_NATS, "set objective.z_loss to 1e-4")


def _data_wait(run: Run) -> Check | None:
    if (share := late_mean(run.series.get(records.DATA_WAIT_SHARE))) is None:
        return None
    finding = f"{100 * share:.2g}% of the time is spent waiting for data"
    return Check(finding, share, *DATA_WAIT, "raise data.num_workers", is_share=True)


def _slowdown(run: Run) -> Check | None:
    series = run.series.get(records.LOOPS_PER_SECOND, run.series.get(records.TOKENS_PER_SECOND))
    if (late := late_mean(series)) is None or series is None:
        return None
    factor = late / float(np.nanmedian(series.values))
    finding = f"the speed of the last quarter is {100 * factor:.0f}% of the run's median"
    advice = "look for other processes with mythos doctor; cluster.num_threads sets the threads of a CPU"
    return Check(finding, factor, *SLOWDOWN, advice, is_floor=True, is_share=True)


def _slowest_rank(run: Run) -> Check | None:
    ratio, limit = late_mean(run.series.get(records.SLOWEST_RANK)), run.config.run.straggler_ratio
    if ratio is None or limit is None:
        return None
    finding = f"the slowest rank takes {ratio:.2f} times as long as the median"
    advice = "run mythos doctor on its node; run.straggler_ratio is the limit"
    return Check(finding, ratio, limit, 2 * limit, advice)


def _utilisation(run: Run) -> Check | None:
    if (share := late_mean(run.series.get(records.MFU))) is None:
        return None
    finding = f"MFU is {100 * share:.2g}%"
    return Check(
        finding,
        share,
        LOW_MFU,
        None,
        "raise data.micro_batch_size, or set parallel.compile=true",
        is_floor=True,
        is_share=True,
    )
