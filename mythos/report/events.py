"""What went wrong or was caught in a run: alarms, and what the guards did."""

from typing import NamedTuple

import numpy as np

from mythos.config import records
from mythos.report.read import Run

_ALARM, _GUARD = records.alarm(""), "guard/"


class Event(NamedTuple):
    """Something that happened once."""

    step: int
    kind: str
    """``alarm`` or ``guard``."""
    name: str
    told: str
    """The figure that raised it, in words; empty where none was recorded."""


def events(run: Run) -> list[Event]:
    """Every alarm that was raised and everything that a guard counted, in order of step."""
    found = []
    for name, series in run.series.items():
        kind = "alarm" if name.startswith(_ALARM) else "guard" if name.startswith(_GUARD) else None
        if kind is None or name.endswith(("/figure", "/limit")):
            continue
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            if value and not np.isnan(value):
                short = name.split("/", 1)[1]
                told = _alarm_in_words(run, short, step) if kind == "alarm" else f"{value:.4g}"
                found.append(Event(step, kind, short.replace("_", " "), told))
    return sorted(found)


def _alarm_in_words(run: Run, name: str, step: int) -> str:
    told = []
    for word, key in (("", records.alarm_figure(name)), ("limit ", records.alarm_limit(name))):
        series = run.series.get(key)
        if series is not None and len(value := series.values[series.steps == step]):
            told.append(f"{word}{value[0]:.4g}")
    return ", ".join(told)
