"""The numbers of a run, gathered on the device and fetched only when they are written."""

from statistics import fmean
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from mythos.callbacks.base import StepCallback
from mythos.config import records
from mythos.config.tracking import TrackingConfig
from mythos.data.datamodule import TokenDataModule
from mythos.moe.balance import load_violation
from mythos.types import LoopTrace, Observation


class RunRecord(StepCallback):
    """Writes a training record every ``log_every`` steps, and the loop trace every ``trace_every``.

    ``latest`` holds the last training record, for those who show it.
    """

    def __init__(self, config: TrackingConfig, data: TokenDataModule, seq_len: int, num_steps: int) -> None:
        self.config = config
        self.data = data
        self.seq_len = seq_len
        self.num_steps = num_steps
        self.latest: dict[str, float] = {}
        self.loops_run = 0.0
        self.steps_run = 0
        self.grad_norm: Tensor | None = None
        self.learning_rates: dict[str, float] = {}
        self.shares: list[Observation] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.config.is_record_step(trainer.global_step + 1, self.num_steps):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self.grad_norm = get_total_norm(gradients)
            self.learning_rates = {
                records.learning_rate(group["label"]): group["lr"] for group in optimizer.param_groups
            }

    def on_micro_batch(self, observation: Observation) -> None:
        self.shares.append(observation)

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        self.steps_run += 1
        self.loops_run += fmean(share.num_loops for share in self.shares)
        if self.config.is_record_step(step, self.num_steps):
            self.latest = self._training_record(trainer)
            self.write(trainer, self.latest, step)
        if self.shares[-1].trace is not None:
            self.write(trainer, _trace_record(self.shares[-1].trace), step)
        self.shares = []

    def write(self, trainer: pl.Trainer, record: dict[str, float], step: int) -> None:
        """Hand one record to every tracker."""
        record = {"tokens": float(self.data.next_sample * self.seq_len), **record}
        for logger in trainer.loggers if trainer.is_global_zero else []:
            logger.log_metrics(record, step)

    def state_dict(self) -> dict[str, Any]:
        return {"loops_run": self.loops_run, "steps_run": self.steps_run}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loops_run, self.steps_run = state_dict["loops_run"], state_dict["steps_run"]

    def _training_record(self, trainer: pl.Trainer) -> dict[str, float]:
        last = self.shares[-1]
        assert self.grad_norm is not None
        record = {
            records.TRAIN_LOSS: _total(share.nll for share in self.shares),
            **self._penalties(),
            records.GRAD_NORM: self.grad_norm.item(),
            **self.learning_rates,
            records.NUM_LOOPS: fmean(share.num_loops for share in self.shares),
            records.NUM_GRAD_LOOPS: fmean(share.num_grad_loops for share in self.shares),
            records.MEAN_LOOPS: self.loops_run / self.steps_run,
        }
        if last.exit_prob_T is not None:
            passes_T = torch.arange(1, len(last.exit_prob_T) + 1, device=last.exit_prob_T.device)
            record[records.EXPECTED_PASSES] = (passes_T * last.exit_prob_T).sum().item()
        if last.router_stats is not None:
            num_layers = last.router_stats.entropy.shape[1]
            num_calls = last.num_tokens * last.num_loops * num_layers
            record[records.LOAD_VIOLATION] = load_violation(last.router_stats.counts_E).item()
            record[records.ROUTER_ENTROPY] = last.router_stats.entropy.sum().item() / num_calls
        return record

    def _penalties(self) -> dict[str, float]:
        names = self.shares[-1].penalties
        return {records.penalty(name): _total(share.penalties[name] for share in self.shares) for name in names}


def _total(shares: Any) -> float:
    return torch.stack(list(shares)).sum().item()


def _trace_record(trace: LoopTrace) -> dict[str, float]:
    record = {}
    pairs = zip(trace.state_norm_T.tolist(), trace.relative_change_T.tolist(), strict=True)
    for loop, (norm, change) in enumerate(pairs):
        record[records.state_norm(loop)] = norm
        record[records.relative_change(loop)] = change
    return record
