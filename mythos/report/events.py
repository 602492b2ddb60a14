"""Events of a run: alarms, and interventions of the guards."""

from typing import NamedTuple

import numpy as np

from mythos.config import records
from mythos.report.read import Run

_ALARM, _GUARD = records.alarm(""), "guard/"


class Event(NamedTuple):
    """One event."""

    step: int
    kind: str
    """``alarm`` or ``guard``."""
    name: str
    detail: str
    """The value that raised it, as text; empty if none was recorded."""


def events(run: Run) -> list[Event]:
    """Every alarm that was raised and every intervention of a guard, in order of step."""
    result = []
    for name, series in run.series.items():
        kind = "alarm" if name.startswith(_ALARM) else "guard" if name.startswith(_GUARD) else None
        if kind is None or name.endswith(("/figure", "/limit")):
            continue
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            if value and not np.isnan(value):
                short = name.split("/", 1)[1]
                detail = _describe_alarm(run, short, step) if kind == "alarm" else f"{value:.4g}"
                result.append(Event(step, kind, short.replace("_", " "), detail))
    return sorted(result)


def _describe_alarm(run: Run, name: str, step: int) -> str:
    parts = []
    for word, key in (("", records.alarm_figure(name)), ("limit ", records.alarm_limit(name))):
        series = run.series.get(key)
        if series is not None and len(value := series.values[series.steps == step]):
            parts.append(f"{word}{value[0]:.4g}")
    return ", ".join(parts)
