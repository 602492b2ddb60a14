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
        self.counts_TLE: Tensor | None = None

    def on_micro_batch(self, observation: Observation) -> None:
        assert observation.router_stats is not None
        counts_TLE = observation.router_stats.counts_E
        self.counts_TLE = counts_TLE if self.counts_TLE is None else self.counts_TLE + counts_TLE

    @torch.no_grad()
    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        assert self.counts_TLE is not None
        counts_TLE = trainer.strategy.reduce(self.counts_TLE, reduce_op="sum")
        bias_LRE = module.model.core.router_bias
        bias_LRE.copy_(moved_bias(bias_LRE, fold_loops(counts_TLE, bias_LRE.shape[1]), self.rate))
        self.counts_TLE = None
