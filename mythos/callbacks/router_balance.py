"""Keeping experts equally busy, loop by loop, without a loss term."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback
from mythos.moe.balance import fold_loops, moved_bias
from mythos.types import Observation


class RouterBalance(StepCallback):
    """Moves the selection bias once per optimiser step, by the loads of all its micro-batches."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.counts: list[Tensor] = []

    def on_micro_batch(self, observation: Observation) -> None:
        assert observation.router_stats is not None
        self.counts.append(observation.router_stats.counts_E)

    @torch.no_grad()
    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        bias_LRE = module.model.core.router_bias
        # Folded before they are added: where sequences differ in depth, so does T between micro-batches.
        counts_LRE = torch.stack([fold_loops(counts_TLE, bias_LRE.shape[1]) for counts_TLE in self.counts]).sum(0)
        counts_LRE = trainer.strategy.reduce(counts_LRE, reduce_op="sum")
        bias_LRE.copy_(moved_bias(bias_LRE, counts_LRE, self.rate))
        self.counts = []
