"""From configuration to torch's optimiser and scheduler."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mythos.config.optim import AdamWConfig, MuonAdamWConfig
from mythos.config.schedule import ScheduleConfig
from mythos.optim.groups import GroupOf, parameter_groups
from mythos.optim.muon_adamw import MuonAdamW
from mythos.optim.schedules import learning_rate_factor


def build_optimizer(
    config: AdamWConfig | MuonAdamWConfig, named_parameters: Iterable[tuple[str, Tensor]], group_of: GroupOf
) -> torch.optim.Optimizer:
    """The configured optimiser over ``model.named_parameters()``, grouped as ``optim.groups.grouping`` says."""
    groups = parameter_groups(named_parameters, config, group_of)
    betas = (config.beta1, config.beta2)
    match config:
        case AdamWConfig():
            return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)
        case MuonAdamWConfig():
            return MuonAdamW(
                groups,
                betas=betas,
                eps=config.eps,
                momentum=config.muon_momentum,
                num_newton_schulz_steps=config.num_newton_schulz_steps,
            )


def build_scheduler(optimizer: torch.optim.Optimizer, config: ScheduleConfig, num_steps: int) -> LambdaLR:
    """A scheduler to be stepped once after every optimiser step of a run of ``num_steps``."""

    def factor(step: int) -> float:
        return learning_rate_factor(config, step, num_steps)

    return LambdaLR(optimizer, factor)


def set_schedule(scheduler: LambdaLR, step: int) -> None:
    """Put the schedule where it stands after ``step`` optimiser steps: it is a function of the step alone."""
    scheduler.last_epoch = step
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
