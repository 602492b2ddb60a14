"""Verdicts on the results of ``mythos evaluate``."""

from collections import defaultdict
from typing import Any

from mythos.report.evaluations import DEPTH_SWEEP, REASONING, TASKS
from mythos.report.read import Run
from mythos.report.verdicts.check import Check, Verdict, judge
from mythos.report.verdicts.loss import gain, rise

SOLVED = (0.5, 0.05)
"""Share of problems solved at the mean depth: amber and red below."""
DEEPER = (-0.05, -0.2)
"""Change of that share from the mean depth to the most loops."""
TASK_CHANGE = (-0.02, -0.1)
"""Change of a task's accuracy from the fewest loops to the most."""


def depth_sweep(run: Run) -> Verdict | None:
    """Whether loops lower the loss up to the mean depth, and do no harm beyond it."""
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None:
        return None
    losses = {loops: float(value) for loops, value in enumerate(sweep["loss"], start=1)}
    num_loops = min(run.config.mean_loops, max(losses))
    return judge((gain(run, losses, num_loops), rise(losses, num_loops)))


def tasks(run: Run) -> Verdict | None:
    """Whether problems are solved at the mean depth, and tasks do not become worse with more loops."""
    return judge([*_solved(run), _task_change(run)])


def _solved(run: Run) -> list[Check]:
    study = run.evaluations.get(REASONING, {})
    checks = []
    for name, shares in study.get("solved", {}).items():
        by_loops = {int(loops): float(share) for loops, share in shares.items()}
        nearest = min(by_loops, key=lambda loops: abs(loops - study["mean_depth"]))
        finding = f"{100 * by_loops[nearest]:.3g}% of {name} is solved at T = {nearest}"
        advice = "train longer (run.num_steps), or on more loops (depth.mean)"
        checks.append(Check(finding, by_loops[nearest], *SOLVED, advice, is_floor=True, is_share=True))
        if (most := max(by_loops)) > nearest:
            change = by_loops[most] - by_loops[nearest]
            finding = f"at T = {most} the share is {100 * change:+.2g} points of a hundred from there"
            advice = f"run at most {nearest} loops, or raise depth.mean or depth.max_loops"
            checks.append(Check(finding, change, *DEEPER, advice, is_floor=True, is_share=True))
    return checks


def _task_change(run: Run) -> Check | None:
    """The largest fall of a task's accuracy from the fewest loops to the most, exit rules left out."""
    by_task: defaultdict[str, dict[float, float]] = defaultdict(dict)
    results: list[dict[str, Any]] = run.evaluations.get(TASKS, {}).get("results", [])
    for result in results:
        if "acc" in result["metrics"] and not result["exit_rule"]:
            by_task[result["task"]][result["mean_loops"]] = result["metrics"]["acc"]
    changes = {task: acc[max(acc)] - acc[min(acc)] for task, acc in by_task.items() if len(acc) > 1}
    if not changes:
        return None
    task = min(changes, key=lambda task: changes[task])
    finding = f"from the fewest loops to the most, accuracy changes by {changes[task]:+.3f} at the least, on {task}"
    return Check(finding, changes[task], *TASK_CHANGE, "run fewer loops, or train on more: depth.mean", is_floor=True)
