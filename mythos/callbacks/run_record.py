"""The training metrics, gathered on the device and fetched only when they are written."""

from dataclasses import replace
from statistics import fmean
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import Metrics, StepCallback, StepResult
from mythos.callbacks.metrics import MetricsWriter
from mythos.callbacks.ranks import padded, sum_over_ranks
from mythos.config import records
from mythos.config.tracking import TrackingConfig
from mythos.moe.balance import load_violation


class RunRecord(StepCallback):
    """Writes the training metrics every ``log_every`` steps; every value is computed over all ranks."""

    def __init__(self, config: TrackingConfig, metrics: MetricsWriter, num_steps: int, max_loops: int) -> None:
        self.config = config
        self.metrics = metrics
        self.num_steps = num_steps
        self.max_loops = max_loops
        """Largest number of loops that any rank can draw."""
        self.loops_run = 0.0
        """Sum over steps of the mean number of loops, up to the last metrics; ``loops_pending`` is that of the steps
        since."""
        self.loops_pending = 0.0
        self.steps_run = 0
        self.learning_rates: Metrics = {}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.config.is_record_step(trainer.global_step + 1, self.num_steps):
            self.learning_rates = {
                records.learning_rate(group["label"]): group["lr"] for group in optimizer.param_groups
            }

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> StepResult | None:
        self.steps_run += 1
        self.loops_pending += fmean(one.num_loops for one in result.observations)
        if not self.config.is_record_step(result.step, self.num_steps):
            return None
        training = self._training_metrics(trainer, result)
        self.metrics.write(trainer, training, result.step)
        return replace(result, training=training)

    def state_dict(self) -> dict[str, Any]:
        """``loops_pending`` is of this rank; ranks differ only with ``depth.per_sequence``."""
        return {"loops_run": self.loops_run + self.loops_pending, "steps_run": self.steps_run}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loops_run, self.steps_run = state_dict["loops_run"], state_dict["steps_run"]

    def _training_metrics(self, trainer: pl.Trainer, result: StepResult) -> Metrics:
        sums = sum_over_ranks(trainer, self._parts(result))
        num_ranks, loops_pending, num_loops, num_grad_loops, num_calls = sums["host"].tolist()
        self.loops_run += loops_pending / num_ranks
        self.loops_pending = 0.0
        squares = {group: sums[f"square/{group}"].item() / num_ranks for group in result.gradients.square_by_group}
        metrics = {
            records.TRAIN_LOSS: sums["nll"].item(),
            **{records.penalty(name): sums[f"penalty/{name}"].item() for name in result.observations[-1].penalties},
            records.GRAD_NORM: sum(squares.values()) ** 0.5,
            **{records.group_grad_norm(group): square**0.5 for group, square in squares.items()},
            **self.learning_rates,
            records.NUM_LOOPS: num_loops / num_ranks,
            records.NUM_GRAD_LOOPS: num_grad_loops / num_ranks,
            records.MEAN_LOOPS: self.loops_run / self.steps_run,
        }
        if "exit_prob_T" in sums:
            loops_T = torch.arange(1, self.max_loops + 1)
            metrics[records.EXPECTED_LOOPS] = (loops_T * sums["exit_prob_T"]).sum().item() / num_ranks
        if "counts_TLE" in sums:
            metrics[records.LOAD_VIOLATION] = load_violation(sums["counts_TLE"]).item()
            metrics[records.ROUTER_ENTROPY] = sums["entropy"].item() / num_calls
        return metrics

    def _parts(self, result: StepResult) -> dict[str, Tensor]:
        """Sums over the step's micro-batches on this rank; the exit distribution is that of the last one."""
        observations, last = result.observations, result.observations[-1]
        parts = {"nll": torch.stack([one.nll for one in observations]).sum()}
        for name in last.penalties:
            parts[f"penalty/{name}"] = torch.stack([one.penalties[name] for one in observations]).sum()
        parts |= {f"square/{group}": square for group, square in result.gradients.square_by_group.items()}
        if last.exit_prob_T is not None:
            parts["exit_prob_T"] = padded(last.exit_prob_T, self.max_loops)
        num_calls = 0.0
        stats = [one.router_stats for one in observations if one.router_stats is not None]
        if stats:
            parts["counts_TLE"] = torch.stack([padded(one.counts_E, self.max_loops) for one in stats]).sum(0)
            parts["entropy"] = torch.stack([one.entropy.sum() for one in stats]).sum()
            num_calls = sum(one.num_tokens * one.num_loops for one in observations) * stats[0].entropy.shape[1]
        num_loops = fmean(one.num_loops for one in observations)
        num_grad_loops = fmean(one.num_grad_loops for one in observations)
        host = [1.0, self.loops_pending, num_loops, num_grad_loops, num_calls]
        parts["host"] = torch.tensor(host, dtype=torch.float64, device=last.nll.device)
        return parts
