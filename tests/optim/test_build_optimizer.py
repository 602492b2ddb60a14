"""Optimiser and scheduler of a configuration."""

import pytest
import torch
from helpers import model_config

from mythos.config.optim import AdamWConfig, MuonAdamWConfig
from mythos.config.schedule import CosineSchedule, TrapezoidSchedule
from mythos.optim.build import build_optimizer, build_scheduler
from mythos.optim.groups import grouping
from mythos.optim.muon_adamw import MuonAdamW

SHAPE_OF_NAME = {
    "embedding.weight": (10, 4),
    "core.blocks.0.attention.q_proj.weight": (4, 4),
    "core.blocks.0.ffn.experts.w1": (3, 8, 4),
    "head.norm.weight": (4,),
}
GROUP_OF = grouping(model_config())
ADAMW = AdamWConfig(lr=1e-2, weight_decay=0.5, beta1=0.8, beta2=0.9)
MUON = MuonAdamWConfig(lr=1e-2, muon_lr=0.1, muon_momentum=0.9, num_newton_schulz_steps=3)


def named_parameters() -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, torch.nn.Parameter(torch.ones(shape))) for name, shape in SHAPE_OF_NAME.items()]


def test_adamw_is_torchs_own_and_decays_matrices_only() -> None:
    named = named_parameters()
    optimizer = build_optimizer(ADAMW, named, GROUP_OF)
    assert type(optimizer) is torch.optim.AdamW
    assert all(group["betas"] == (0.8, 0.9) for group in optimizer.param_groups)
    for _, parameter in named:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = {name: float(parameter.detach().flatten()[0]) for name, parameter in named}
    assert after == {
        "embedding.weight": 1.0,
        "core.blocks.0.attention.q_proj.weight": pytest.approx(0.995),
        "core.blocks.0.ffn.experts.w1": pytest.approx(0.995),
        "head.norm.weight": 1.0,
    }


def test_muon_adamw_gets_every_option() -> None:
    optimizer = build_optimizer(MUON, named_parameters(), GROUP_OF)
    assert isinstance(optimizer, MuonAdamW)
    assert [(group["label"], group["algorithm"], group["lr"]) for group in optimizer.param_groups] == [
        ("hidden", "muon", 0.1),
        ("experts", "muon", 0.1),
        ("other", "adamw", 1e-2),
    ]
    for group in optimizer.param_groups:
        assert (group["momentum"], group["num_newton_schulz_steps"]) == (0.9, 3)
        assert (group["betas"], group["eps"]) == ((0.9, 0.95), 1e-8)


@pytest.mark.parametrize("config", [ADAMW, MUON])
def test_the_scheduler_scales_each_groups_own_rate(config) -> None:
    optimizer = build_optimizer(config, named_parameters(), GROUP_OF)
    full = [group["lr"] for group in optimizer.param_groups]
    scheduler = build_scheduler(optimizer, TrapezoidSchedule(num_warmup_steps=2, cooldown_fraction=0.5), 4)
    for factor in (0.5, 1.0, 1.0, 0.5, 0.0):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr * factor for lr in full])
        optimizer.step()
        scheduler.step()


def test_a_resumed_scheduler_continues_where_it_was() -> None:
    config = CosineSchedule(num_warmup_steps=2)
    optimizer = build_optimizer(MUON, named_parameters(), GROUP_OF)
    scheduler = build_scheduler(optimizer, config, 10)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    resumed_optimizer = build_optimizer(MUON, named_parameters(), GROUP_OF)
    resumed = build_scheduler(resumed_optimizer, config, 10)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for _ in range(5):
        assert [group["lr"] for group in resumed_optimizer.param_groups] == [
            group["lr"] for group in optimizer.param_groups
        ]
        for each_optimizer, each_scheduler in ((optimizer, scheduler), (resumed_optimizer, resumed)):
            each_optimizer.step()
            each_scheduler.step()
