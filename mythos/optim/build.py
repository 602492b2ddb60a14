"""Build the optimiser and the scheduler of a configuration."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mythos.config.optim import AdamWConfig, ForeignOptimConfig, MuonAdamWConfig, OptimConfig
from mythos.config.schedule import ScheduleConfig
from mythos.optim.foreign import build_foreign
from mythos.optim.groups import GroupOf, parameter_groups
from mythos.optim.muon_adamw import MuonAdamW
from mythos.optim.schedules import learning_rate_factor


def build_optimizer(
    config: OptimConfig, named_parameters: Iterable[tuple[str, Tensor]], group_of: GroupOf
) -> torch.optim.Optimizer:
    """Build the configured optimiser over ``model.named_parameters()``, grouped by ``optim.groups.grouping``.

    Raises:
        ConfigError: another package's optimiser cannot be built.
    """
    groups = parameter_groups(named_parameters, config, group_of)
    match config:
        case ForeignOptimConfig():
            return build_foreign(config, groups)
        case AdamWConfig(beta1=beta1, beta2=beta2):
            return torch.optim.AdamW(groups, lr=config.lr, betas=(beta1, beta2), eps=config.eps, fused=True)
        case MuonAdamWConfig(beta1=beta1, beta2=beta2):
            return MuonAdamW(
                groups,
                betas=(beta1, beta2),
                eps=config.eps,
                momentum=config.muon_momentum,
                num_newton_schulz_steps=config.num_newton_schulz_steps,
            )


def build_scheduler(optimizer: torch.optim.Optimizer, config: ScheduleConfig, num_steps: int) -> LambdaLR:
    """Build a scheduler, which is stepped once after every optimiser step of a run of ``num_steps``."""

    def factor(step: int) -> float:
        return learning_rate_factor(config, step, num_steps)

    return LambdaLR(optimizer, factor)


def set_schedule(scheduler: LambdaLR, step: int) -> None:
    """Set the learning rates to those after ``step`` optimiser steps, of which they are a function."""
    scheduler.last_epoch = step
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
