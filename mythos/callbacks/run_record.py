"""The numbers of a run, gathered on the device and fetched only when they are written."""

import sys
from statistics import fmean
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback
from mythos.callbacks.ranks import padded, sum_over_ranks
from mythos.config import records
from mythos.config.tracking import TrackingConfig
from mythos.data.datamodule import TokenDataModule
from mythos.moe.balance import load_violation
from mythos.parallel.gradients import squared_norms
from mythos.types import Observation


class RunRecord(StepCallback):
    """Writes a training record every ``log_every`` steps; every number in it is of all ranks.

    ``latest`` holds the last training record, for those who show it.
    """

    def __init__(
        self, config: TrackingConfig, data: TokenDataModule, seq_len: int, num_steps: int, max_loops: int
    ) -> None:
        self.config = config
        self.data = data
        self.seq_len = seq_len
        self.num_steps = num_steps
        self.max_loops = max_loops
        """Deepest T that any rank can draw."""
        self.latest: dict[str, float] = {}
        self.loops_run = 0.0
        """Sum over steps of the mean depth, up to the last record; the steps since are in ``loops_pending``."""
        self.loops_pending = 0.0
        self.steps_run = 0
        self.grad_squares: dict[str, Tensor] = {}
        self.learning_rates: dict[str, float] = {}
        self.shares: list[Observation] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.config.is_record_step(trainer.global_step + 1, self.num_steps):
            self.grad_squares = squared_norms(trainer, pl_module)
            self.learning_rates = {
                records.learning_rate(group["label"]): group["lr"] for group in optimizer.param_groups
            }

    def on_micro_batch(self, observation: Observation) -> None:
        self.shares.append(observation)

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        self.steps_run += 1
        self.loops_pending += fmean(share.num_loops for share in self.shares)
        if self.config.is_record_step(step, self.num_steps):
            self.latest = self._training_record(trainer)
            self.write(trainer, self.latest, step)
        self.shares = []

    def write(self, trainer: pl.Trainer, record: dict[str, float], step: int) -> None:
        """Hand one record, the same on every rank, to every tracker of the first rank."""
        record = {"tokens": float(self.data.next_sample * self.seq_len), **record}
        for logger in trainer.loggers if trainer.is_global_zero else []:
            logger.log_metrics(record, step)

    def state_dict(self) -> dict[str, Any]:
        """Between records, ``loops_pending`` is of this rank; ranks differ only with ``depth.per_sequence``."""
        return {"loops_run": self.loops_run + self.loops_pending, "steps_run": self.steps_run}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loops_run, self.steps_run = state_dict["loops_run"], state_dict["steps_run"]

    def _training_record(self, trainer: pl.Trainer) -> dict[str, float]:
        sums = sum_over_ranks(trainer, self._parts())
        num_ranks, loops_pending, num_loops, num_grad_loops, num_calls = sums["host"].tolist()
        self.loops_run += loops_pending / num_ranks
        self.loops_pending = 0.0
        squares = {group: sums[f"square/{group}"].item() / num_ranks for group in self.grad_squares}
        record = {
            records.TRAIN_LOSS: sums["nll"].item(),
            **{records.penalty(name): sums[f"penalty/{name}"].item() for name in self.shares[-1].penalties},
            records.GRAD_NORM: sum(squares.values()) ** 0.5,
            **{records.group_grad_norm(group): square**0.5 for group, square in squares.items()},
            **self.learning_rates,
            records.NUM_LOOPS: num_loops / num_ranks,
            records.NUM_GRAD_LOOPS: num_grad_loops / num_ranks,
            records.MEAN_LOOPS: self.loops_run / self.steps_run,
        }
        if "exit_prob_T" in sums:
            loops_T = torch.arange(1, self.max_loops + 1)
            record[records.EXPECTED_LOOPS] = (loops_T * sums["exit_prob_T"]).sum().item() / num_ranks
        if "counts_TLE" in sums:
            record[records.LOAD_VIOLATION] = load_violation(sums["counts_TLE"]).item()
            record[records.ROUTER_ENTROPY] = sums["entropy"].item() / num_calls
        return record

    def _parts(self) -> dict[str, Tensor]:
        """This rank's sums over the step's micro-batches; the exit distribution is the last one's."""
        shares, last = self.shares, self.shares[-1]
        parts = {"nll": torch.stack([share.nll for share in shares]).sum()}
        for name in last.penalties:
            parts[f"penalty/{name}"] = torch.stack([share.penalties[name] for share in shares]).sum()
        parts |= {f"square/{group}": square for group, square in self.grad_squares.items()}
        if last.exit_prob_T is not None:
            parts["exit_prob_T"] = padded(last.exit_prob_T, self.max_loops)
        num_calls = 0.0
        stats = [share.router_stats for share in shares if share.router_stats is not None]
        if stats:
            parts["counts_TLE"] = torch.stack([padded(one.counts_E, self.max_loops) for one in stats]).sum(0)
            parts["entropy"] = torch.stack([one.entropy.sum() for one in stats]).sum()
            num_calls = sum(share.num_tokens * share.num_loops for share in shares) * stats[0].entropy.shape[1]
        num_loops = fmean(share.num_loops for share in shares)
        num_grad_loops = fmean(share.num_grad_loops for share in shares)
        host = [1.0, self.loops_pending, num_loops, num_grad_loops, num_calls]
        parts["host"] = torch.tensor(host, dtype=torch.float64, device=last.nll.device)
        return parts


def announce(trainer: pl.Trainer, who: str, title: str, text: str) -> None:
    """To the terminal and to the people who watch the run, from the first rank."""
    if trainer.is_global_zero:
        print(f"{who}: {title}: {text}", file=sys.stderr, flush=True)
        for logger in trainer.loggers:
            if hasattr(logger, "alert"):
                logger.alert(title, text)
