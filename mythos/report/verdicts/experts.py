"""The verdict on routing: whether the experts are balanced."""

import numpy as np

from mythos.config import records
from mythos.config.model import MoEConfig
from mythos.config.routing_advice import routing_advice
from mythos.report.figures.experts import layer_means
from mythos.report.read import Run, Series
from mythos.report.verdicts.check import Level, Verdict
from mythos.report.verdicts.series import last

BALANCED = 0.5
"""Load violation below which routing counts as balanced: no expert has 1.5 times the mean load."""


def routing(run: Run) -> Verdict | None:
    """Whether routing is balanced, over the loops below the mean depth; deeper loops run in few steps."""
    experts = run.config.model.core_ffn
    loops = layer_means(run, records.load_violation)
    frequent = [series for loop, series in loops.items() if loop < run.config.mean_loops]
    if not isinstance(experts, MoEConfig) or not frequent:
        return None
    largest = experts.largest_violation
    collapsed = run.config.telemetry.alarms.collapsed_routing * largest
    violation = float(np.mean([last(series) for series in frequent]))
    steps, worst = _worst(frequent)
    if violation < BALANCED:
        level, state = Level.GREEN, "Routing is balanced"
    elif violation > collapsed:
        level, state = Level.RED, "Routing has collapsed: most tokens use the same experts"
    else:
        level = Level.AMBER
        state = "Routing is uneven but recovering" if violation < worst / 2 else "Routing is uneven"
    idle, idle_limit = _idle_steps(run), run.config.telemetry.alarms.idle_steps
    if idle is not None and idle >= idle_limit:
        level = Level.RED
    sentences = [
        f"{state}: at the last measurement the load violation of the first {len(frequent)} loops is {violation:.2f} of "
        f"at most {largest:g}; its largest was {worst:.2f}, at step {steps}."
    ]
    sentences += [text for text in (_idle(idle), _repeated(run)) if text]
    sentences.append(
        f"Amber from a violation of {BALANCED:g}, red above {collapsed:g} or from {idle_limit} idle steps."
    )
    if level > Level.GREEN:
        sentences.append(f"What to do: {routing_advice(run.config)}")
    return Verdict(level, " ".join(sentences))


def _idle_steps(run: Run) -> float | None:
    """For how many steps the least-loaded expert has been without a token; None if it was not logged."""
    series = [each for name, each in run.series.items() if name.startswith("experts/idle_steps/")]
    return max((last(each) for each in series), default=None)


def _idle(longest: float | None) -> str | None:
    if longest is None:
        return None
    return (
        "No expert is idle." if longest == 0 else f"The least-loaded expert has had no token for {longest:.0f} steps."
    )


def _repeated(run: Run) -> str | None:
    """The share of tokens that keep all of their experts from loop to loop."""
    loops = layer_means(run, records.identical_experts)
    shares = [last(series) for loop, series in loops.items() if 0 < loop < run.config.mean_loops]
    if not shares:
        return None
    return f"From one loop to the next {100 * float(np.mean(shares)):.0f}% of the tokens keep all of their experts."


def _worst(loops: list[Series]) -> tuple[int, float]:
    """Step and size of the largest mean over loops, of those that ran in a measurement."""
    by_step: dict[int, list[float]] = {}
    for series in loops:
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            by_step.setdefault(step, []).append(value)
    means = {step: float(np.nanmean(values)) for step, values in by_step.items()}
    step = max(means, key=lambda step: means[step])
    return step, means[step]
