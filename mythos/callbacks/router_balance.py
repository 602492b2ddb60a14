"""Balances the load of experts, loop by loop, without a loss term."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback, StepResult
from mythos.checkpoint.fragments import checksum
from mythos.moe.balance import BalanceRule


class RouterBalance(StepCallback):
    """Moves the router bias once per optimiser step, by the router statistics of all its micro-batches and ranks.

    A skipped step does not move it.

    Args:
        rule: how the bias moves.
        copy_last: whether rows of loops that did not run move as the deepest one that did.
        check_every: optimiser steps between checks that all ranks hold the same bias.
    """

    def __init__(self, rule: BalanceRule, copy_last: bool, check_every: int = 1) -> None:
        self.rule = rule
        self.copy_last = copy_last
        self.check_every = check_every

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.count_margins(self.rule.num_bins)

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        if result.is_skipped:
            return
        stats = [one.router_stats for one in result.observations if one.router_stats is not None]
        bias_LRE = module.move_router_bias(self.rule, stats, self.copy_last)
        if trainer.world_size > 1 and result.step % self.check_every == 0:
            _check_equal(trainer, bias_LRE, result.step)


def _check_equal(trainer: pl.Trainer, bias_LRE: Tensor, step: int) -> None:
    """Check that the bias is bitwise equal on all ranks."""
    own = checksum(bias_LRE.cpu().flatten(), 0) >> 1  # fits into a signed integer
    sums = torch.tensor([own, -own], device=bias_LRE.device)
    largest, negated_smallest = trainer.strategy.reduce(sums, reduce_op="max").tolist()
    if largest != -negated_smallest:
        raise RuntimeError(
            f"rank {trainer.global_rank}: the router bias differs between ranks after step {step}, so their weights or "
            "their data differ; resume from the last checkpoint with resume=auto."
        )
