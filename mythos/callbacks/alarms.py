"""Failures that a loop hides: each telemetry is checked for them, and each of them is reported once."""

import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl

from mythos.callbacks.alarm import Alarm
from mythos.callbacks.base import Metrics, StepCallback, StepResult
from mythos.callbacks.metrics import MetricsWriter
from mythos.callbacks.routing_alarm import collapsed_routing
from mythos.config import records
from mythos.config.alarms import AlarmsConfig
from mythos.config.run import RunConfig

_CONVERGED = 1e-4
"""Relative change of the state below which its growth is rounding."""


def raised(history: Sequence[Metrics], step: int, run: RunConfig) -> list[Alarm]:
    """Return the alarms of the last entry of ``history``.

    Args:
        history: telemetry in the order of its steps.
        step: number of finished optimiser steps.
    """
    config = run.telemetry.alarms
    alarms = [*not_finite(history[-1]), *_idle_expert(history[-1], config)]
    recent = history[-config.num_records :]
    if len(recent) < config.num_records:
        return alarms
    checks = [_token_correlation, _growing_change]
    if step >= config.num_warmup_steps:
        checks += [_ignored_state, _starved_loop]
    checks.append(collapsed_routing)
    for check in checks:
        crossed = [alarm for metrics in recent if (alarm := check(metrics, run)) is not None]
        if len(crossed) == len(recent):
            alarms.append(crossed[-1])
    return alarms


class Alarms(StepCallback):
    """Checks the telemetry against its limits, and that the training metrics are finite."""

    def __init__(self, config: RunConfig, metrics: MetricsWriter) -> None:
        self.config = config
        self.metrics = metrics
        self.history: deque[Metrics] = deque(maxlen=config.telemetry.alarms.num_records)
        self.reported: set[str] = set()

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        step = result.step
        alarms: list[Alarm] = []
        if result.training is not None:
            alarms += not_finite(result.training)
        if result.telemetry is not None:
            self.history.append(result.telemetry)
            alarms += raised(list(self.history), step, self.config)
        for alarm in alarms:
            entry = {
                records.alarm(alarm.name): 1.0,
                records.alarm_figure(alarm.name): alarm.figure,
                records.alarm_limit(alarm.name): alarm.limit,
            }
            self.metrics.write(trainer, entry, step)
            if alarm.name not in self.reported and trainer.is_global_zero:
                self._report(trainer, alarm, step)
            self.reported.add(alarm.name)

    def state_dict(self) -> dict[str, Any]:
        return {"history": list(self.history), "reported": sorted(self.reported)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.extend(state_dict["history"])
        self.reported = set(state_dict["reported"])

    def _report(self, trainer: pl.Trainer, alarm: Alarm, step: int) -> None:
        print(f"alarm at step {step}: {alarm.sentence}", file=sys.stderr, flush=True)
        for logger in trainer.loggers:
            if hasattr(logger, "alert"):
                logger.alert(f"{alarm.name} at step {step}", alarm.sentence)


def not_finite(metrics: Metrics) -> Iterator[Alarm]:
    """Yield an alarm if any metric is NaN or infinite."""
    names = sorted(name for name, value in metrics.items() if not math.isfinite(value))
    if names:
        sentence = f"{len(names)} metrics are not finite, among them {names[0]}."
        yield Alarm("not_finite", float(len(names)), 0.0, sentence)


def _idle_expert(metrics: Metrics, config: AlarmsConfig) -> Iterator[Alarm]:
    idle = {name: value for name, value in metrics.items() if name.startswith("experts/idle_steps/")}
    longest = max(idle, key=lambda name: idle[name], default=None)
    if longest is not None and idle[longest] >= config.idle_steps:
        sentence = (
            f"no token has been routed to an expert of core layer {records.layer_of(longest)} in any loop "
            f"for {idle[longest]:.0f} steps; the limit is {config.idle_steps}."
        )
        yield Alarm("dead_expert", idle[longest], float(config.idle_steps), sentence)


def _token_correlation(metrics: Metrics, run: RunConfig) -> Alarm | None:
    limit = run.telemetry.alarms.token_correlation
    by_loop = _by_loop(metrics, records.token_correlation)
    loop = max(range(len(by_loop)), key=lambda loop: by_loop[loop])
    if not by_loop[loop] > limit:  # NaN raises another alarm
        return None
    sentence = (
        f"after loop {loop} the states of a sequence's tokens have a mean cosine of {by_loop[loop]:.3f}, above "
        f"{limit:g}; the state is collapsing to one vector."
    )
    return Alarm("token_correlation", by_loop[loop], limit, sentence)


def _growing_change(metrics: Metrics, run: RunConfig) -> Alarm | None:
    limit = run.telemetry.alarms.change_growth
    by_loop = _by_loop(metrics, records.relative_change)
    middle, last = len(by_loop) // 2, len(by_loop) - 1
    if last <= middle or by_loop[middle] <= 0 or by_loop[last] < _CONVERGED:
        return None
    factor = (by_loop[last] / by_loop[middle]) ** (1 / (last - middle))
    if not factor > limit:
        return None
    sentence = (
        f"the relative change of the state grows by {factor:.3f} a loop from loop {middle} to loop {last}, above "
        f"{limit:g}; the state does not converge."
    )
    return Alarm("growing_change", factor, limit, sentence)


def _ignored_state(metrics: Metrics, run: RunConfig) -> Alarm | None:
    limit = run.telemetry.alarms.ignored_state
    deep = run.mean_loops
    once, loss = metrics.get(records.loss_at(1)), metrics.get(records.loss_at(deep))
    if deep == 1 or once is None or loss is None or once <= 0:
        return None
    gain = (once - loss) / once
    if not gain < limit:
        return None
    sentence = (
        f"{deep} loops lower the loss by {100 * gain:.2f}% against one loop ({once:.4f} to {loss:.4f} nats per "
        f"token), less than {100 * limit:g}%; the model ignores its state."
    )
    return Alarm("ignored_state", gain, limit, sentence)


def _starved_loop(metrics: Metrics, run: RunConfig) -> Alarm | None:
    limit = run.telemetry.alarms.halting_mass
    by_loop = _by_loop(metrics, records.halting_mass)[: run.mean_loops]
    if not by_loop or not min(by_loop) < limit:
        return None
    loop = by_loop.index(min(by_loop))
    sentence = (
        f"the mean probability of exiting after loop {loop} is {by_loop[loop]:.2g}, below "
        f"{limit:g}; the output of that loop is not trained."
    )
    return Alarm("starved_loop", by_loop[loop], limit, sentence)


def _by_loop(metrics: Metrics, name_of: Any) -> list[float]:
    """Values of a metric from loop 0 on."""
    values: list[float] = []
    while name_of(len(values)) in metrics:
        values.append(metrics[name_of(len(values))])
    return values
