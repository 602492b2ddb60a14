"""Keeping experts equally busy, loop by loop, without a loss term."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback
from mythos.callbacks.guard import Guard
from mythos.checkpoint.fragments import checksum
from mythos.moe.balance import bucket_loops, updated_bias
from mythos.types import Observation


class RouterBalance(StepCallback):
    """Moves the selection bias once per optimiser step that is taken, by the loads of all its micro-batches and ranks.

    Args:
        rate: size of a move.
        copy_last: whether rows of loops that did not run follow the deepest one that did.
        guard: knows which steps are skipped.
        check_every: optimiser steps between checks that all ranks hold the same bias.
    """

    def __init__(self, rate: float, copy_last: bool, guard: Guard, check_every: int = 1) -> None:
        self.rate = rate
        self.copy_last = copy_last
        self.guard = guard
        self.check_every = check_every
        self.counts: list[Tensor] = []

    def on_micro_batch(self, observation: Observation) -> None:
        assert observation.router_stats is not None
        self.counts.append(observation.router_stats.counts_E)

    @torch.no_grad()
    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        counts, self.counts = self.counts, []
        if self.guard.is_skipping:
            return
        bias_LRE = module.model.core.router_bias
        # Folded before they are added: where sequences differ in depth, so does T between micro-batches.
        counts_LRE = torch.stack([bucket_loops(counts_TLE, bias_LRE.shape[1]) for counts_TLE in counts]).sum(0)
        counts_LRE = trainer.strategy.reduce(counts_LRE, reduce_op="sum")
        bias_LRE.copy_(updated_bias(bias_LRE, counts_LRE, self.rate, self.copy_last))
        if trainer.world_size > 1 and step % self.check_every == 0:
            _check_equal(trainer, bias_LRE, step)


def _check_equal(trainer: pl.Trainer, bias_LRE: Tensor, step: int) -> None:
    """Compare the bits of all ranks."""
    own = checksum(bias_LRE.cpu().flatten(), 0) >> 1  # fits a signed number
    sums = torch.tensor([own, -own], device=bias_LRE.device)
    largest, negated_smallest = trainer.strategy.reduce(sums, reduce_op="max").tolist()
    if largest != -negated_smallest:
        raise RuntimeError(
            f"rank {trainer.global_rank}: the router bias differs between ranks after step {step}; their weights or "
            "their data have come apart, so go on from the last checkpoint with resume=auto."
        )
