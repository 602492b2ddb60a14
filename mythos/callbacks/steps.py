"""Collects micro-batches into optimiser steps and calls the step callbacks."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback, StepGradients, StepResult, StopVotes
from mythos.callbacks.ranks import sum_over_ranks
from mythos.callbacks.step_profiler import StepProfiler
from mythos.callbacks.stop_vote import StopVote
from mythos.types import Observation


class Steps(pl.Callback):
    """Builds one ``StepGradients`` and one ``StepResult`` a step and passes them to the trainer's step callbacks.

    Loss, gradient norm and the votes to stop are summed over ranks in one exchange, for which the host waits for the
    device once a step.
    """

    def __init__(self, stop_vote: StopVote, profiler: StepProfiler) -> None:
        self.stop_vote = stop_vote
        self.profiler = profiler
        self.losses: list[Tensor] = []
        self.observations: list[Observation] = []
        self.gradients: StepGradients | None = None
        self.votes: StopVotes | None = None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        if len(self.losses) < trainer.accumulate_grad_batches:
            return  # an engine calls for every micro-batch
        square_by_group = pl_module.squared_gradient_norms()
        # Ranks scale their losses by their number, and all know the whole gradient: both are means over ranks.
        parts = {
            "loss": torch.stack(self.losses).sum(),
            "square": torch.stack(list(square_by_group.values())).sum(),
            "stop": self.stop_vote.cast(trainer.strategy.root_device),
        }
        self.losses = []
        sums = sum_over_ranks(trainer, parts)
        loss, square = ((sums[name] / trainer.world_size).item() for name in ("loss", "square"))
        self.gradients = StepGradients(loss, square**0.5, square_by_group)
        self.votes = StopVotes(*sums["stop"].tolist())
        for callback in step_callbacks(trainer):
            callback.on_before_update(trainer, pl_module, self.gradients)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.observations.append(outputs["observation"])
        if (batch_idx + 1) % trainer.accumulate_grad_batches != 0:
            return
        assert self.gradients is not None
        assert self.votes is not None
        result = StepResult(
            step=trainer.global_step,
            observations=tuple(self.observations),
            gradients=self.gradients,
            votes=self.votes,
            is_skipped=pl_module.is_skipping,
            is_profiled=self.profiler.is_open,
        )
        self.observations, self.gradients, self.votes = [], None, None
        for callback in step_callbacks(trainer):
            result = callback.on_step_end(trainer, pl_module, result) or result


def step_callbacks(trainer: Any) -> list[StepCallback]:
    """Return the trainer's step callbacks in the order in which they act."""
    return [callback for callback in trainer.callbacks if isinstance(callback, StepCallback)]
