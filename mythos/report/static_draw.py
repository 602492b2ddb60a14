"""The static figures: loss by cost, loss by number of loops, the state by loop, exit rules."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mythos.report.reduce import thin
from mythos.report.spent import Spent
from mythos.report.static_series import DepthSweep, Norms
from mythos.report.static_style import (
    Axes,
    LineStyle,
    line_styles,
    log_axis,
    num_loops_axis,
    render,
    scientific,
    set_ticks,
    short,
)
from mythos.report.theme import LIGHT

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


def losses(runs: dict[str, Spent], style_of: dict[str, LineStyle]) -> str:
    """Validation loss against tokens, training FLOPs and seconds; a cost that no run logged has no panel."""
    costs = [cost for cost in _COSTS if any(np.isfinite(getattr(run, cost[0])).any() for run in runs.values())]
    max_points = min(300, _MAX_POINTS // (len(costs) * len(runs)))  # of one line, which is 260 pixels wide

    def draw(panels: list[Axes]) -> None:
        for panel, (name, title, label) in zip(panels, costs, strict=True):
            for run_name, run in runs.items():
                kept = thin(run.loss, max_points)
                spent = getattr(run, name)[kept]
                panel.plot(
                    spent, run.loss[kept], label=f"{run_name}, T = {run.num_loops}", **style_of[run_name].of(len(kept))
                )
            log_axis(panel, "x", np.concatenate([getattr(run, name) for run in runs.values()]), label)
            panel.set_xlabel(title)
        _share_heights(panels)
        panels[0].set_ylabel(f"validation {_loss_title(runs)}")

    return render(len(costs), draw)


def depth_sweeps(sweeps: dict[str, DepthSweep], style_of: dict[str, LineStyle]) -> str:
    """Loss and accuracy against the number of loops, with the mean depth of training marked; fits are dashed."""

    def draw(panels: list[Axes]) -> None:
        for panel, figure in zip(panels, ("loss", "accuracy"), strict=True):
            for name, sweep in sweeps.items():
                _plot_curve(panel, sweep, getattr(sweep, figure), name, style_of[name])
                if figure == "loss" and sweep.fitted is not None:
                    between = np.geomspace(1, len(sweep.loss), 40)
                    panel.plot(between, sweep.fitted.at(between), **_FIT)
            num_loops_axis(panel, max(len(sweep.loss) for sweep in sweeps.values()))
        if any(sweep.mean_depth <= len(sweep.loss) for sweep in sweeps.values()):
            panels[0].plot([], [], color=LIGHT.muted, label="mean depth of training", **_RING)
        if any(sweep.fitted is not None for sweep in sweeps.values()):
            panels[0].plot([], [], label="fit L∞ + Z exp(-z T / mean)", **_FIT)
        panels[0].set_ylabel(_loss_title(sweeps))
        panels[1].set_ylabel("accuracy")

    return render(2, draw)


def norms(runs: dict[str, Norms], style_of: dict[str, LineStyle]) -> str:
    """The state's norm and, where it was logged, its relative change against the loop."""
    shown = {"norm": "norm of the state", "relative_change": "relative change"}
    if not any(np.isfinite(run.relative_change.values).any() for run in runs.values()):
        del shown["relative_change"]

    def draw(panels: list[Axes]) -> None:
        for panel, (figure, title) in zip(panels, shown.items(), strict=True):
            series_of = {name: getattr(run, figure) for name, run in runs.items()}
            for name, series in series_of.items():
                panel.plot(series.steps, series.values, label=name, **style_of[name].of(len(series.steps)))
            last = int(max(series.steps.max(initial=0) for series in series_of.values()))
            set_ticks(panel.xaxis, list(range(0, last + 1, last // 8 or 1)), "{:g}".format)
            panel.set_xlabel("loop t")
            panel.set_ylabel(title)
            if figure == "relative_change":
                log_axis(panel, "y", np.concatenate([series.values for series in series_of.values()]), "{:g}".format)

    return render(len(shown), draw)


def exits(sweeps: dict[str, DepthSweep], style_of: dict[str, LineStyle]) -> str:
    """Loss against the mean number of loops for each exit rule of the first run, and with T loops for all tokens."""
    name, sweep = next(iter(sweeps.items()))

    def draw(panels: list[Axes]) -> None:
        panel, loops = panels[0], np.arange(1, len(sweep.loss) + 1)
        most_loops = max(point["mean_loops"] for points in sweep.rules.values() for point in points)
        shown = loops <= np.ceil(most_loops)
        panel.plot(
            loops[shown], np.array(sweep.loss)[shown], label="T loops, all tokens", color=LIGHT.muted, linewidth=2.5
        )
        for (rule, points), style in zip(sweep.rules.items(), line_styles(sweep.rules).values(), strict=True):
            mean_loops, loss = ([point[key] for point in points] for key in ("mean_loops", "loss"))
            panel.plot(mean_loops, loss, label=rule.replace("_", " "), **style.of(len(points)))
        panel.set_xlabel("mean number of loops")
        panel.set_ylabel(_loss_title(sweeps))
        panel.set_title(name, loc="left", fontsize=9)

    return render(1, draw)


def _loss_title(shown: Mapping[str, Spent | DepthSweep]) -> str:
    """The title of an axis of losses, which have one unit in all runs."""
    return f"loss ({next(iter(shown.values())).unit})"


def _plot_curve(panel: Axes, sweep: DepthSweep, values: list[float], name: str, style: LineStyle) -> None:
    """Plot a curve with markers at the requested loop counts, and a ring at the mean depth if it reaches that far."""
    loops, marked = np.arange(1, len(values) + 1), [num_loops - 1 for num_loops in sweep.num_loops]
    panel.plot(loops, values, label=name, markevery=marked, **style._asdict())
    if sweep.mean_depth <= len(values):
        panel.plot(sweep.mean_depth, np.interp(sweep.mean_depth, loops, values), color=style.color, **_RING)


def _share_heights(panels: list[Axes]) -> None:
    """Share one range of the y axis, with tick labels beside the first panel only."""
    for panel in panels[1:]:
        panel.sharey(panels[0])
        panel.tick_params(labelleft=False)
