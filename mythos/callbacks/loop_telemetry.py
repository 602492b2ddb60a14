"""What each loop does, recorded at a slow rhythm: the state, the experts, the loss by depth, the updates."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback
from mythos.callbacks.loop_record import (
    injection_parts,
    load_arrays,
    load_record,
    loop_record,
    observation_parts,
    overlap_array,
    trace_parts,
)
from mythos.callbacks.ranks import padded, sum_over_ranks
from mythos.callbacks.record_file import RecordFile
from mythos.callbacks.run_record import RunRecord
from mythos.config import records
from mythos.config.run import RunConfig
from mythos.parallel.device import autocast
from mythos.parallel.gradients import sample_weights, trained_names, update_squares
from mythos.parallel.partition import partition_of, whole
from mythos.types import IGNORED, Batch, Observation, Regularizers, first_rows

_NUM_POWER_ITERATIONS = 8


class LoopTelemetry(StepCallback):
    """Writes a trace record every ``trace_every`` steps, and arrays into ``trace.jsonl``.

    Nothing waits for the device between records, and no number of the training changes. ``latest`` holds the last
    record, for those who judge it.
    """

    def __init__(self, config: RunConfig, record: RunRecord, directory: Path) -> None:
        self.tracking = config.tracking
        self.depths = config.tracking.loops_read(config.depth.mean)
        self.max_loops = config.depth.max_loops
        self.rows_differ = config.depth.per_sequence
        self.precision = config.parallel.precision
        self.record = record
        self.directory = directory
        self.file: RecordFile | None = None
        self.latest: dict[str, float] = {}
        self.last: Observation | None = None
        self.counts_TLE: Tensor | None = None
        """Visits since the last record, of this rank."""
        self.last_used_LE: np.ndarray | None = None
        """Step of the last record before which each expert had a token."""
        self.first_step = 0
        self.read: dict[str, Tensor] = {}
        """What the extra forward of this step has read, before the weights move."""
        self.of_model: dict[str, Tensor] = {}
        """What the parameters say, under the names that are recorded; the same on every rank."""
        self.weights: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_step = trainer.global_step
        if trainer.is_global_zero:
            self.file = RecordFile(self.directory / records.TRACE_FILE_NAME, self.first_step)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step + 1
        is_last = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_last and self._is_due(step):
            with (
                autocast(self.precision, pl_module.device),
                torch.compiler.set_stance("force_eager"),
                warnings.catch_warnings(),
            ):
                warnings.filterwarnings("ignore", "flex_attention called without")  # its scores are of a few rows
                self.read = self._read(pl_module, batch, step)
            with whole(pl_module.model.core.injection):
                self.of_model = injection_parts(pl_module.model.core.injection)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._is_due(trainer.global_step + 1):
            self.weights = _sample(trainer, pl_module)

    def on_micro_batch(self, observation: Observation) -> None:
        self.last = observation
        if observation.router_stats is not None:
            counts_TLE = observation.router_stats.counts_E
            if self.counts_TLE is None:
                self.counts_TLE = torch.zeros_like(padded(counts_TLE, self.max_loops))
            self.counts_TLE[: counts_TLE.shape[0]] += counts_TLE

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        if not self._is_due(step):
            return
        assert self.last is not None
        assert self.last.trace is not None
        squares = update_squares(self.weights, _sample(trainer, module))
        parts = trace_parts(self.last.trace, self.max_loops)
        parts["gradient_square_T"] /= trainer.world_size**2  # the engine averages over ranks what ours adds up
        parts |= observation_parts(self.last, self.max_loops, self.rows_differ) | self.read | self.of_model
        parts |= {f"update/{group}": both for group, both in squares.items()}
        if self.counts_TLE is not None:
            parts["counts_TLE"] = self.counts_TLE
        sums = sum_over_ranks(trainer, parts)
        self.latest = loop_record(sums) | self._read_record(sums)
        self.latest |= {name: (sums[name] / sums["num_ranks"]).item() for name in self.of_model}
        for group in squares:
            changed, size = sums[f"update/{group}"].sqrt().tolist()
            self.latest[records.group_update_norm(group)] = changed / max(size, 1e-12)
        if self.counts_TLE is not None:
            self.latest |= load_record(sums["counts_TLE"]) | self._idle_record(sums["counts_TLE"], step)
            if self.file is not None:
                arrays = load_arrays(sums["counts_TLE"]) | {records.EXPERT_OVERLAP: overlap_array(sums)}
                self.file.write(arrays, step)
                shown = {name: arrays[name] for name in (records.EXPERT_LOAD, records.EXPERT_OVERLAP)}
                for logger in trainer.loggers:
                    if hasattr(logger, "log_arrays"):
                        logger.log_arrays(shown, step)
        self.record.write(trainer, self.latest, step)
        self.last, self.counts_TLE = None, None
        self.read, self.of_model, self.weights = {}, {}, {}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _is_due(self, step: int) -> bool:
        return step % self.tracking.trace_every == 0

    @torch.no_grad()
    def _read(self, module: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        """Loss by depth, and the growth of a small change of the state, on the first rows of a micro-batch."""
        rows = first_rows(batch, self.tracking.trace_rows)
        every = self.tracking.jacobian_every
        is_grown = every is not None and step % every == 0
        output = module.model(
            rows,
            self.depths[-1],
            0,
            exits=tuple(depth - 1 for depth in self.depths),
            regularizers=Regularizers(num_power_iterations=_NUM_POWER_ITERATIONS if is_grown else 0),
        )
        read = {"nll_X": output.nll_XBS.sum((1, 2)), "num_targets": (rows.targets_BS != IGNORED).sum()}
        if output.jacobian_growth_B is not None:
            read["growth"] = output.jacobian_growth_B.sqrt().mean()
        return read

    def _read_record(self, sums: dict[str, Tensor]) -> dict[str, float]:
        loss_X = (sums["nll_X"] / sums["num_targets"]).tolist()
        record = {records.loss_at(depth): loss for depth, loss in zip(self.depths, loss_X, strict=True)}
        if "growth" in sums:
            record[records.JACOBIAN_RADIUS] = (sums["growth"] / sums["num_ranks"]).item()
        return record

    def _idle_record(self, counts_TLE: Tensor, step: int) -> dict[str, float]:
        """Steps since the expert of each layer that has waited longest had a token, as far as the records know."""
        is_used_LE = (counts_TLE.sum(0) > 0).numpy()
        if self.last_used_LE is None:
            self.last_used_LE = np.full(is_used_LE.shape, self.first_step)
        self.last_used_LE[is_used_LE] = step
        idle_L = (step - self.last_used_LE).max(1).tolist()
        return {records.idle_steps(layer): float(idle) for layer, idle in enumerate(idle_L)}


def _sample(trainer: pl.Trainer, module: Any) -> dict[str, list[Tensor]]:
    return sample_weights(partition_of(module, trainer.strategy.optimizers[0]), trained_names(module.model))
