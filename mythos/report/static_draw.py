"""The static figures: loss by cost, loss by depth, the state by loop, exit rules."""

from typing import Any

import numpy as np

from mythos.report.reduce import thin
from mythos.report.spent import Spent
from mythos.report.static_series import Norms, Sweep
from mythos.report.static_style import Axes, Look, depth_axis, log_axis, looks, render, scientific, set_ticks, short
from mythos.report.theme import LIGHT

_LOSS = "loss (nats per token)"
_MAX_POINTS = 3000
"""Points in all panels together, some 22 bytes each."""
_COSTS = (
    ("tokens", "training tokens", short),
    ("flops", "training FLOPs", scientific),
    ("seconds", "seconds of training", short),
)
_FIT: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (5, 3)), "zorder": 2.5, "color": LIGHT.text}
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 10,
    "fillstyle": "none",
    "linestyle": "none",
    "markeredgewidth": 1.2,
}


def losses(found: dict[str, Spent], look_of: dict[str, Look]) -> str:
    """Validation loss against tokens, training FLOPs and seconds; a cost that no run recorded has no panel."""
    costs = [cost for cost in _COSTS if any(np.isfinite(getattr(run, cost[0])).any() for run in found.values())]
    max_points = min(300, _MAX_POINTS // (len(costs) * len(found)))  # of one line, which is 260 pixels wide

    def draw(panels: list[Axes]) -> None:
        for panel, (name, title, label) in zip(panels, costs, strict=True):
            for run_name, run in found.items():
                kept = thin(run.loss, max_points)
                spent = getattr(run, name)[kept]
                panel.plot(
                    spent, run.loss[kept], label=f"{run_name}, T = {run.depth}", **look_of[run_name].of(len(kept))
                )
            log_axis(panel, "x", np.concatenate([getattr(run, name) for run in found.values()]), label)
            panel.set_xlabel(title)
        _share_heights(panels)
        panels[0].set_ylabel(f"validation {_LOSS}")

    return render(len(costs), draw)


def depths(found: dict[str, Sweep], look_of: dict[str, Look]) -> str:
    """Loss and accuracy against the passes, the mean depth of training marked on each curve; fits thin and dashed."""

    def draw(panels: list[Axes]) -> None:
        for panel, figure in zip(panels, ("loss", "accuracy"), strict=True):
            for name, sweep in found.items():
                _curve_of_depth(panel, sweep, getattr(sweep, figure), name, look_of[name])
                if figure == "loss" and sweep.fitted is not None:
                    between = np.geomspace(1, len(sweep.loss), 40)
                    panel.plot(between, sweep.fitted.at(between), **_FIT)
            depth_axis(panel, max(len(sweep.loss) for sweep in found.values()))
        if any(sweep.mean_depth <= len(sweep.loss) for sweep in found.values()):
            panels[0].plot([], [], color=LIGHT.muted, label="mean depth of training", **_RING)
        if any(sweep.fitted is not None for sweep in found.values()):
            panels[0].plot([], [], label="fit L∞ + Z exp(-z T / mean)", **_FIT)
        panels[0].set_ylabel(_LOSS)
        panels[1].set_ylabel("accuracy")

    return render(2, draw)


def norms(found: dict[str, Norms], look_of: dict[str, Look]) -> str:
    """The state's norm and, where it was recorded, its relative change against the loop."""
    shown = {"norm": "norm of the state", "relative_change": "relative change"}
    if not any(np.isfinite(run.relative_change.values).any() for run in found.values()):
        del shown["relative_change"]

    def draw(panels: list[Axes]) -> None:
        for panel, (figure, title) in zip(panels, shown.items(), strict=True):
            every = {name: getattr(run, figure) for name, run in found.items()}
            for name, series in every.items():
                panel.plot(series.steps, series.values, label=name, **look_of[name].of(len(series.steps)))
            last = int(max(series.steps.max(initial=0) for series in every.values()))
            set_ticks(panel.xaxis, list(range(0, last + 1, last // 8 or 1)), "{:g}".format)
            panel.set_xlabel("loop t")
            panel.set_ylabel(title)
            if figure == "relative_change":
                log_axis(panel, "y", np.concatenate([series.values for series in every.values()]), "{:g}".format)

    return render(len(shown), draw)


def exits(found: dict[str, Sweep], look_of: dict[str, Look]) -> str:
    """Loss against mean passes for each exit rule of the first run, beside that of equal depth for all tokens."""
    name, sweep = next(iter(found.items()))

    def draw(panels: list[Axes]) -> None:
        panel, loops = panels[0], np.arange(1, len(sweep.loss) + 1)
        deepest = max(point["mean_loops"] for points in sweep.rules.values() for point in points)
        shown = loops <= np.ceil(deepest)
        panel.plot(
            loops[shown], np.array(sweep.loss)[shown], label="every token alike", color=LIGHT.muted, linewidth=2.5
        )
        for (rule, points), look in zip(sweep.rules.items(), looks(sweep.rules).values(), strict=True):
            mean_loops, loss = ([point[key] for point in points] for key in ("mean_loops", "loss"))
            panel.plot(mean_loops, loss, label=rule.replace("_", " "), **look.of(len(points)))
        panel.set_xlabel("mean passes")
        panel.set_ylabel(_LOSS)
        panel.set_title(name, loc="left", fontsize=9)

    return render(1, draw)


def _curve_of_depth(panel: Axes, sweep: Sweep, values: list[float], name: str, look: Look) -> None:
    """A curve by pass with markers at the depths asked for, and a ring at the mean depth where it goes that far."""
    loops, marked = np.arange(1, len(values) + 1), [depth - 1 for depth in sweep.depths]
    panel.plot(loops, values, label=name, markevery=marked, **look._asdict())
    if sweep.mean_depth <= len(values):
        panel.plot(sweep.mean_depth, np.interp(sweep.mean_depth, loops, values), color=look.color, **_RING)


def _share_heights(panels: list[Axes]) -> None:
    """One range of the y axis for all, with numbers beside the first only."""
    for panel in panels[1:]:
        panel.sharey(panels[0])
        panel.tick_params(labelleft=False)
