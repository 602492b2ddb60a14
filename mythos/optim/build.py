"""From configuration to torch's optimiser and scheduler."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mythos.config.optim import AdamWConfig, MuonAdamWConfig
from mythos.config.schedule import ScheduleConfig
from mythos.optim.groups import parameter_groups
from mythos.optim.muon_adamw import MuonAdamW
from mythos.optim.schedules import learning_rate_factor


def build_optimizer(
    config: AdamWConfig | MuonAdamWConfig, named_parameters: Iterable[tuple[str, Tensor]]
) -> torch.optim.Optimizer:
    """The configured optimiser over ``model.named_parameters()``."""
    groups = parameter_groups(named_parameters, config)
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


def reapply_options(optimizer: torch.optim.Optimizer, scheduler: LambdaLR, configured: torch.optim.Optimizer) -> None:
    """Give an optimiser that was restored from a file the options of a freshly ``configured`` one.

    Restoring brings back the saved learning rates and decays as well as the moments; what the configuration says
    now counts. Unchanged options stay bitwise the same.
    """
    for place, (group, fresh) in enumerate(zip(optimizer.param_groups, configured.param_groups, strict=True)):
        group.update({key: value for key, value in fresh.items() if key != "params"})
        group["initial_lr"] = scheduler.base_lrs[place] = fresh["lr"]
        group["lr"] = fresh["lr"] * scheduler.lr_lambdas[place](scheduler.last_epoch)


def build_scheduler(optimizer: torch.optim.Optimizer, config: ScheduleConfig, num_steps: int) -> LambdaLR:
    """A scheduler to be stepped once after every optimiser step of a run of ``num_steps``."""

    def factor(step: int) -> float:
        return learning_rate_factor(config, step, num_steps)

    return LambdaLR(optimizer, factor)
