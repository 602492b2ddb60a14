"""Sentences that say what a run's figures mean, with the numbers."""

import numpy as np

from mythos.config import records
from mythos.config.model import MoEConfig
from mythos.report.figures.experts import layer_means
from mythos.report.read import Run, Series

BALANCED = 0.5
"""Load violation below which routing counts as balanced: no expert has 1.5 times the mean load."""


def routing(run: Run) -> str | None:
    """Whether routing is balanced, over the loops below the mean depth; deeper loops run in few steps."""
    experts = run.config.model.core_ffn
    loops = layer_means(run, records.load_violation)
    frequent = [series for loop, series in loops.items() if loop < run.config.mean_loops]
    if not isinstance(experts, MoEConfig) or not frequent:
        return None
    largest = experts.largest_violation
    last = float(np.mean([_last(series) for series in frequent]))
    steps, worst = _worst(frequent)
    if last < BALANCED:
        state = "Routing is balanced"
    elif last > run.config.telemetry.alarms.collapsed_routing * largest:
        state = "Routing has collapsed: most tokens use the same experts"
    else:
        state = "Routing is uneven but recovering" if last < worst / 2 else "Routing is uneven"
    sentences = [
        f"{state}: at the last measurement the load violation of the first {len(frequent)} loops is {last:.2f} of at "
        f"most {largest:g}; its largest was {worst:.2f}, at step {steps}."
    ]
    sentences += [text for text in (_idle(run), _repeated(run)) if text]
    return " ".join(sentences)


def _idle(run: Run) -> str | None:
    """How long the least-loaded experts have been without a token."""
    series = [each for name, each in run.series.items() if name.startswith("experts/idle_steps/")]
    if not series:
        return None
    longest = max(_last(each) for each in series)
    return (
        "No expert is idle." if longest == 0 else f"The least-loaded expert has had no token for {longest:.0f} steps."
    )


def _repeated(run: Run) -> str | None:
    """The share of tokens that keep all of their experts from loop to loop."""
    loops = layer_means(run, records.identical_experts)
    shares = [_last(series) for loop, series in loops.items() if 0 < loop < run.config.mean_loops]
    if not shares:
        return None
    return f"From one loop to the next {100 * float(np.mean(shares)):.0f}% of the tokens keep all of their experts."


def _last(series: Series) -> float:
    return float(series.values[np.isfinite(series.values)][-1])


def _worst(loops: list[Series]) -> tuple[int, float]:
    """Step and size of the largest mean over loops, of those that ran in a measurement."""
    by_step: dict[int, list[float]] = {}
    for series in loops:
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            by_step.setdefault(step, []).append(value)
    means = {step: float(np.nanmean(values)) for step, values in by_step.items()}
    step = max(means, key=lambda step: means[step])
    return step, means[step]
