"""Weights & Biases: metrics by optimiser step, charts over loops, alerts."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import wandb

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.config.tracking import WandbTracking
from mythos.files import read_regular, write_text
from mythos.train.trackers.base import Tracker
from mythos.train.trackers.charts import LoopHistory, heatmap, layer_rows, per_layer, spread

_SUMMARY: Final = (
    *(records.TRAIN_LOSS, records.GRAD_NORM, records.MEAN_LOOPS, records.EXPECTED_LOOPS),
    *(records.LOAD_VIOLATION, records.ROUTER_ENTROPY, records.JACOBIAN_RADIUS, records.DECAY_MAX),
    *(records.MEAN_TOKENS_PER_SECOND, records.MEAN_MFU, records.DATA_WAIT_SHARE, records.PEAK_ALLOCATED),
)
"""Metrics of the run's summary beside ``step``, ``tokens`` and held-out losses."""
_NUM_LOSSES: Final = 7
"""Largest number of held-out losses in the summary."""


class WandbTracker(Tracker):
    """One W&B run for a run, however often it resumes; W&B's own step is the optimiser step.

    Metrics of one step share a row, which W&B closes at the next step. A run that resumes from an earlier step than W&B
    has seen repeats these steps bitwise, so they are not sent again.

    Args:
        facts: configuration, code and environment.

    Raises:
        ConfigError: W&B refuses the run, for instance because no user is logged in.
    """

    def __init__(self, tracking: WandbTracking, config: RunConfig, directory: Path, facts: dict[str, Any]) -> None:
        super().__init__()
        self.num_steps = config.run.num_steps
        self.max_cells = tracking.max_cells
        self.chart_every = max(1, self.num_steps // tracking.num_charts)
        self.history = LoopHistory()
        self.layers: dict[str, float] = {}
        self.last_sent: dict[str, int] = {}
        self.last_chart = -1
        self.unsent: int | None = None
        try:
            self.run = wandb.init(
                project=tracking.project,
                entity=tracking.entity,
                name=config.run.name,
                id=_run_id(directory),
                group=config.run.name,
                dir=directory,
                mode="offline" if tracking.mode == "offline" else None,  # None respects WANDB_MODE
                resume="allow",
                config=facts,
                allow_val_change=True,
                settings=wandb.Settings(disable_git=True, save_code=False),
            )
        except wandb.Error as error:
            raise ConfigError(
                f"tracking.mode is {tracking.mode} but W&B refused the run ({error}); run wandb login, or set "
                "tracking.mode=offline."
            ) from None
        self.run.define_metric("step")
        self.run.define_metric("tokens", step_metric="step")
        self.run.define_metric("*", step_metric="step", summary="none")
        for name in _summary_metrics(config):
            self.run.define_metric(name, step_metric="step")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        if self._is_due(_kind(metrics), len(metrics), step):
            self._send(metrics, step)
        self.layers = per_layer(metrics) or self.layers
        if self.history.add(metrics, step):
            self.unsent = step
            if step // self.chart_every > self.last_chart:
                self.last_chart = step // self.chart_every
                self._send_charts()

    def log_arrays(self, arrays: Mapping[str, npt.ArrayLike], step: int) -> None:
        """Log [rows][columns] as a heatmap, the first row at the bottom; [layer][loop][expert] also as a table."""
        for name, nested in arrays.items():
            array = np.asarray(nested, dtype=float)
            if not self._is_due(f"array/{name}", array.size, step):
                continue
            rows = array.reshape(-1, array.shape[-1]).tolist()
            page = heatmap(f"{name} at step {step}", rows, range(array.shape[-1]), "row")
            charts: dict[str, Any] = {f"arrays/{name}": wandb.Html(page, inject=False)}
            if array.ndim == 3:
                columns = ["layer", "loop", *(f"expert {expert}" for expert in range(array.shape[2]))]
                indices = np.ndindex(array.shape[:2])
                cells = [[*index, *row] for index, row in zip(indices, rows, strict=True)]
                charts[f"tables/{name}"] = wandb.Table(columns=list(columns), data=cells)
            self._send(charts, step)

    def alert(self, title: str, text: str) -> None:
        self.run.alert(title=title, text=text, level="WARN")

    def end(self, status: str) -> None:
        self._send_charts()
        self.run.finish(exit_code=0 if status == "success" else 1)

    def restore(self, metrics: Mapping[str, float], step: int) -> None:
        """Add metrics from before a resume to the charts."""
        self.history.add(metrics, step)

    def _is_due(self, kind: str, num_cells: int, step: int) -> bool:
        """Whether to send metrics of this kind, so that the whole run stays within ``max_cells`` of them."""
        stride = math.ceil(self.num_steps * num_cells / self.max_cells)
        last = self.last_sent.get(kind)
        is_due = last is None or step // stride > last // stride or step in (last, self.num_steps)
        if is_due:
            self.last_sent[kind] = step
        return is_due

    def _send(self, metrics: Mapping[str, Any], step: int) -> None:
        if step >= self.run.starting_step:
            self.run.log({"step": step, **metrics}, step=step)

    def _send_charts(self) -> None:
        """Send a heatmap over (step, loop) and lines over loops for each metric, and the table of layers."""
        if self.unsent is None:
            return
        charts: dict[str, Any] = {}
        for family in self.history.columns:
            steps, rows = self.history.matrix(family)
            charts[f"heatmaps/{family}"] = wandb.Html(heatmap(family, rows, [f"step {s}" for s in steps]), inject=False)
            lines = {
                f"step {steps[index]:07d}": [
                    (loop, row[index]) for loop, row in enumerate(rows) if math.isfinite(row[index])
                ]
                for index in spread(steps)
            }
            charts[f"over_loops/{family}"] = wandb.plot.line_series(
                xs=[[loop for loop, _ in line] for line in lines.values()],
                ys=[[value for _, value in line] for line in lines.values()],
                keys=list(lines),
                title=family,
                xname="loop",
            )
        if self.layers:
            columns, cells = layer_rows(self.layers)
            charts["tables/layers"] = wandb.Table(columns=list(columns), data=cells)
        self._send(charts, self.unsent)
        self.unsent = None


def _summary_metrics(config: RunConfig) -> list[str]:
    """Return the metrics of the run's summary, whose table would otherwise have a line for every loop and layer."""
    num_loops = sorted(set(config.run.validation.num_loops))
    last = len(num_loops) - 1
    shown = {num_loops[round(part * last / (_NUM_LOSSES - 1))] for part in range(_NUM_LOSSES)}
    return [*_SUMMARY, *map(records.validation_loss, sorted(shown))]


def _kind(metrics: Mapping[str, float]) -> str:
    """Return the kind of the metrics, the first part of the first name."""
    name = next((name for name in metrics if name not in ("step", "tokens")), "")
    return name if name.startswith("alarm/") else name.partition("/")[0]


def _run_id(directory: Path) -> str:
    """Return the id of the run, drawn once and stored beside the metrics."""
    path = directory / "wandb-id"
    if not path.exists():
        write_text(path, f"{time.time_ns():x}")
    return read_regular(path).decode()
