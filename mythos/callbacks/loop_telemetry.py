"""Telemetry of the loop every few steps: the state, the experts, the loss by loop count, the updates."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from mythos.callbacks.base import Metrics, StepCallback, StepResult
from mythos.callbacks.loop_record import (
    gate_record,
    load_arrays,
    load_record,
    loop_record,
    observation_parts,
    overlap_array,
    trace_parts,
)
from mythos.callbacks.metrics import MetricsWriter
from mythos.callbacks.ranks import padded, sum_over_ranks
from mythos.callbacks.record_file import RecordFile
from mythos.config import records
from mythos.config.parts import parts_of
from mythos.config.run import RunConfig
from mythos.parallel.gradients import update_squares
from mythos.types import IGNORED, Batch, Observation, first_rows

_NUM_POWER_ITERATIONS = 8


class LoopTelemetry(StepCallback):
    """Writes the telemetry every ``trace_every`` steps, and its arrays into ``trace.jsonl``.

    The host does not wait for the device in other steps, and training is bitwise the same as without.
    """

    def __init__(self, config: RunConfig, metrics: MetricsWriter, directory: Path) -> None:
        self.telemetry = config.telemetry
        self.num_loops = config.telemetry.loops_read(config.depth.mean)
        self.families = [part.spec.family for part in parts_of(config.model)[1:]]
        self.max_loops = config.depth.max_loops
        self.rows_differ = config.depth.per_sequence
        self.metrics = metrics
        self.directory = directory
        self.file: RecordFile | None = None
        self.counts_TLE: Tensor | None = None
        """Tokens of this rank that were routed to each expert since the last telemetry."""
        self.last_used_LE: np.ndarray | None = None
        """Step of the last telemetry before which each expert had a token."""
        self.first_step: int | None = None
        """Step from which idle experts are counted; a resumed run keeps that of its first start."""
        self.evaluated: dict[str, Tensor] = {}
        """Results of this step's extra forward, which runs before the weights change."""
        self.of_parts: dict[str, Tensor] = {}
        """Figures of the injection and the loop parts, by the names of their metrics; the same on every rank."""
        self.weights: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.first_step is None:
            self.first_step = trainer.global_step
        if trainer.is_global_zero:
            self.file = RecordFile(self.directory / records.TRACE_FILE_NAME, trainer.global_step)
        elif self.counts_TLE is not None:
            self.counts_TLE.zero_()  # rank 0 resumes with the tokens of all ranks

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step + 1
        is_last = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_last and self._is_due(step):
            with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "flex_attention called without")  # there are only a few rows
                self.evaluated = self._evaluate(pl_module, batch, step)
            self.of_parts = pl_module.part_figures()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        if self._is_due(trainer.global_step + 1):
            self.weights = pl_module.sampled_weights()

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> StepResult | None:
        for observation in result.observations:
            self._add_counts(observation)
        if not self._is_due(result.step):
            return None
        sums, squares = self._sums(trainer, module, result.observations[-1])
        telemetry = loop_record(sums) | gate_record(sums, self.families) | self._evaluated_metrics(sums)
        telemetry |= {name: (sums[name] / sums["num_ranks"]).item() for name in self.of_parts}
        for group in squares:
            changed, size = sums[f"update/{group}"].sqrt().tolist()
            telemetry[records.group_update_norm(group)] = changed / max(size, 1e-12)
        if self.counts_TLE is not None:
            telemetry |= load_record(sums["counts_TLE"]) | self._idle_metrics(sums["counts_TLE"], result.step)
            self._write_arrays(trainer, sums, result.step)
        self.metrics.write(trainer, telemetry, result.step)
        self.counts_TLE = None
        self.evaluated, self.of_parts, self.weights = {}, {}, {}
        return replace(result, telemetry=telemetry)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save what has been observed since the last telemetry, over all ranks."""
        counts_TLE = self.counts_TLE
        if counts_TLE is not None:
            counts_TLE = sum_over_ranks(trainer, {"counts_TLE": counts_TLE})["counts_TLE"].long()
        checkpoint["callbacks"][self.state_key] = {
            "first_step": self.first_step,
            "last_used_LE": None if self.last_used_LE is None else self.last_used_LE.tolist(),
            "counts_TLE": None if counts_TLE is None else counts_TLE.tolist(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first_step = state_dict["first_step"]
        if state_dict["last_used_LE"] is not None:
            self.last_used_LE = np.array(state_dict["last_used_LE"])
        if state_dict["counts_TLE"] is not None:
            counts_TLE = torch.tensor(state_dict["counts_TLE"])
            self.counts_TLE = padded(counts_TLE, max(self.max_loops, counts_TLE.shape[0]))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _is_due(self, step: int) -> bool:
        return step % self.telemetry.trace_every == 0

    def _add_counts(self, observation: Observation) -> None:
        if observation.router_stats is not None:
            counts_TLE = observation.router_stats.counts_E
            if self.counts_TLE is None:
                self.counts_TLE = torch.zeros_like(padded(counts_TLE, self.max_loops))
            self.counts_TLE = self.counts_TLE.to(counts_TLE)
            self.counts_TLE[: counts_TLE.shape[0]] += counts_TLE

    def _evaluate(self, module: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        """Loss by loop count and, every ``jacobian_every`` steps, the Jacobian growth, on the first rows of a batch."""
        rows = first_rows(batch, self.telemetry.trace_rows)
        every = self.telemetry.jacobian_every
        has_growth = every is not None and step % every == 0
        nll_X, growth_B = module.evaluate_loops(rows, self.num_loops, _NUM_POWER_ITERATIONS if has_growth else 0)
        evaluated = {"nll_X": nll_X, "num_targets": (rows.targets_BS != IGNORED).sum()}
        if growth_B is not None:
            evaluated["growth"] = growth_B.sqrt().mean()
        return evaluated

    def _sums(self, trainer: pl.Trainer, module: Any, last: Observation) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Sums over ranks, and this rank's squared updates by group, which the sums include."""
        assert last.trace is not None
        squares = update_squares(self.weights, module.sampled_weights())
        parts = trace_parts(last.trace, self.max_loops)
        parts["gradient_square_T"] /= trainer.world_size**2  # gradients are averaged over ranks, parts are summed
        parts |= observation_parts(last, self.max_loops, self.rows_differ) | self.evaluated | self.of_parts
        parts |= {f"update/{group}": both for group, both in squares.items()}
        if self.counts_TLE is not None:
            parts["counts_TLE"] = self.counts_TLE
        return sum_over_ranks(trainer, parts), squares

    def _write_arrays(self, trainer: pl.Trainer, sums: dict[str, Tensor], step: int) -> None:
        if self.file is None:
            return
        arrays = load_arrays(sums["counts_TLE"]) | {records.EXPERT_OVERLAP: overlap_array(sums)}
        self.file.write(arrays, step)
        shown = {name: arrays[name] for name in (records.EXPERT_LOAD, records.EXPERT_OVERLAP)}
        for logger in trainer.loggers:
            if hasattr(logger, "log_arrays"):
                logger.log_arrays(shown, step)

    def _evaluated_metrics(self, sums: dict[str, Tensor]) -> Metrics:
        loss_X = (sums["nll_X"] / sums["num_targets"]).tolist()
        metrics = {records.loss_at(loops): loss for loops, loss in zip(self.num_loops, loss_X, strict=True)}
        if self.num_loops[0] == 1 < self.num_loops[-1]:
            metrics[records.LOSS_GAIN] = loss_X[0] - loss_X[-1]
        if "growth" in sums:
            metrics[records.JACOBIAN_RADIUS] = (sums["growth"] / sums["num_ranks"]).item()
        return metrics

    def _idle_metrics(self, counts_TLE: Tensor, step: int) -> Metrics:
        """Steps since a token was routed to the least recently used expert of each layer, as seen by the telemetry."""
        is_used_LE = (counts_TLE.sum(0) > 0).numpy()
        if self.last_used_LE is None:
            self.last_used_LE = np.full(is_used_LE.shape, self.first_step)
        self.last_used_LE[is_used_LE] = step
        idle_L = (step - self.last_used_LE).max(1).tolist()
        return {records.idle_steps(layer): float(idle) for layer, idle in enumerate(idle_L)}
