"""Verdicts on the loss: whether it falls, and whether more loops lower it."""

import math

import numpy as np

from mythos.config import records
from mythos.report.read import Run, Series, by_index, nearest_num_loops
from mythos.report.verdicts.check import Check, Verdict, judge
from mythos.report.verdicts.series import last, last_step, num_events

DIVERGED_NATS = (0.1, 0.5)
"""Mean training loss of the last tenth of the run above that of the best tenth, in nats per token: amber, red."""
OVERFITTED_NATS = (0.02, 0.2)
"""Last held-out loss above its lowest value, in nats per token."""
SKIPPED_SHARE = (0.001, 0.01)
"""Skipped steps, as a share of all steps."""
GUESSING_SHARE = (0.9, 0.98)
"""Mean training loss of the last tenth, as a share of that of guessing among all tokens, from ``MIN_STEPS`` on."""
MIN_STEPS = 200
RISE_NATS = (0.02, 0.2)
"""Loss at the largest number of loops above the lowest one, in nats per token."""
_SKIPS = ("not_finite", "loss_spike", "gradient_spike")


def loss(run: Run) -> Verdict | None:
    """Whether the loss is finite, falls, and does not rise again on held-out text; and how often the guard acted."""
    train, num_loops = run.series.get(records.TRAIN_LOSS), nearest_num_loops(run)
    validation = None if num_loops is None else run.series[records.validation_loss(num_loops)]
    if train is None and validation is None:
        return None
    checks = [*_of_training(run, train), _overfitted(validation, num_loops)]
    rollbacks = num_events(run, (records.guard("rollback"),))
    skips = num_events(run, tuple(records.guard(name) for name in _SKIPS))
    share = skips / max(last_step(run), 1)
    advice = "lower optim.lr or lengthen schedule.num_warmup_steps"
    checks.append(
        Check(f"the guard skipped {100 * share:.2g}% of the steps", share, *SKIPPED_SHARE, advice, is_share=True)
    )
    checks.append(Check(f"it returned to a checkpoint {rollbacks} times", rollbacks, 0, 1, advice))
    return judge(checks if train is not None else checks[:-2])


def by_num_loops(run: Run) -> Verdict | None:
    """Whether the loops up to the mean depth lower the loss, and whether those beyond it do no harm."""
    losses = {loops: last(series) for loops, series in by_index(run.series, records.validation_loss).items()}
    nearest = nearest_num_loops(run)
    if nearest is None or len(losses) < 2:
        return None
    return judge((gain(run, losses, nearest), rise(losses, nearest)))


def gain(run: Run, losses: dict[int, float], num_loops: int) -> Check | None:
    """The share by which ``num_loops`` loops lower the loss against the fewest; losses are by number of loops."""
    fewest, limits = min(losses), run.config.telemetry.alarms
    if fewest >= num_loops or not losses[fewest] > 0:
        return None
    share = (losses[fewest] - losses[num_loops]) / losses[fewest]
    is_early = last_step(run) < limits.num_warmup_steps
    finding = f"the decrease of the loss from T = {fewest} to {num_loops} is {100 * share:.2g}%"
    if is_early:
        advice = f"train on: before step {limits.num_warmup_steps:,} this is no fault"
    else:
        advice = "the model ignores its loops: train longer, or lower depth.mean to save what they cost"
    return Check(finding, share, limits.ignored_state, None if is_early else 0.0, advice, is_floor=True, is_share=True)


def rise(losses: dict[int, float], num_loops: int) -> Check | None:
    """How far the loss at the most loops lies above the lowest; None without more than ``num_loops``."""
    most, best = max(losses), min(losses, key=lambda loops: losses[loops])
    if most <= num_loops:
        return None
    above = losses[most] - losses[best]
    finding = f"the loss at T = {most} is {above:.3f} nats above the lowest, at T = {best}"
    advice = f"run at most {best} loops, or train on more of them: raise depth.mean or depth.max_loops"
    return Check(finding, above, *RISE_NATS, advice)


def _of_training(run: Run, train: Series | None) -> list[Check]:
    if train is None:
        return []
    if not math.isfinite(train.values[-1]):
        finding = f"the training loss is {train.values[-1]} at step {train.steps[-1]:,}"
        return [Check(finding, math.nan, 0, 0, "lower optim.lr, and resume from an earlier checkpoint")]
    tenths = [float(np.nanmean(part)) for part in np.array_split(train.values, 10) if np.isfinite(part).any()]
    rise_nats = tenths[-1] - min(tenths)
    finding = f"the training loss of the last tenth of the run is {rise_nats:.3f} nats above that of the best tenth"
    checks = [Check(finding, rise_nats, *DIVERGED_NATS, "lower optim.lr or lengthen schedule.num_warmup_steps")]
    if last_step(run) >= MIN_STEPS:
        share = tenths[-1] / math.log(run.config.model.vocab_size)
        finding = f"it is {100 * share:.0f}% of that of guessing"
        checks.append(
            Check(finding, share, *GUESSING_SHARE, "nothing is learned: change optim.lr, check data.dir", is_share=True)
        )
    return checks


def _overfitted(validation: Series | None, num_loops: int | None) -> Check | None:
    if validation is None:
        return None
    lowest = float(np.nanmin(validation.values, initial=math.inf))
    above = float(validation.values[-1]) - lowest
    finding = f"the held-out loss at T = {num_loops} is {above:.3f} nats above its lowest"
    advice = "the model learns its text by heart: give data.dir more text, or lower run.num_steps"
    return Check(finding, above, *OVERFITTED_NATS, advice)
