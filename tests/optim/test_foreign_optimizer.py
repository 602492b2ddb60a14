"""An optimiser of another package gets the groups and its options, and keeps a state that checkpoints can hold."""

from collections.abc import Callable

import pytest
import torch
from helpers import model_config

from mythos.config.base import ConfigError
from mythos.config.optim import ForeignOptimConfig
from mythos.optim.build import build_optimizer
from mythos.optim.groups import grouping

GROUP_OF = grouping(model_config())

SOURCE = """
import torch

class Signs(torch.optim.Optimizer):
    def __init__(self, groups, scale=1.0, state_shape=None):
        super().__init__(groups, {"lr": 1.0, "weight_decay": 0.0, "scale": scale})
        self.state_shape = state_shape

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                shape = parameter.shape if self.state_shape is None else self.state_shape
                self.state[parameter]["memory"] = torch.zeros(shape)
                parameter -= group["lr"] * group["scale"] * parameter.grad.sign()

def nothing(groups):
    return 7
"""


@pytest.fixture(autouse=True)
def _installed(install: Callable[..., None]) -> None:
    names = [f"{name} = foreign_optim:{target}" for name, target in (("signs", "Signs"), ("nothing", "nothing"))]
    install("foreign_optim", "2.0", SOURCE, optimizers=names)


def named_parameters() -> list[tuple[str, torch.nn.Parameter]]:
    shapes = {"embedding.weight": (10, 4), "core.blocks.0.attention.q_proj.weight": (4, 4)}
    named = [(name, torch.nn.Parameter(torch.ones(shape))) for name, shape in shapes.items()]
    for _, parameter in named:
        parameter.grad = torch.ones_like(parameter)
    return named


def test_it_gets_the_groups_and_the_options() -> None:
    named = named_parameters()
    config = ForeignOptimConfig(name="signs", lr=0.5, weight_decay=0.1, options={"scale": 0.5})
    optimizer = build_optimizer(config, named, GROUP_OF)
    assert type(optimizer).__name__ == "Signs"
    groups = [(g["label"], g["algorithm"], g["lr"], g["weight_decay"], g["scale"]) for g in optimizer.param_groups]
    assert groups == [("hidden", "foreign", 0.5, 0.1, 0.5), ("other", "foreign", 0.5, 0.0, 0.5)]
    for value in (0.75, 0.5):
        optimizer.step()
        assert all((parameter == value).all() for _, parameter in named)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            ForeignOptimConfig(name="sign", lr=1.0),
            "optim.name: 'sign' was given, but no installed package declares it under the entry points "
            "'mythos.optimizers'; did you mean 'signs'?",
        ),
        (
            ForeignOptimConfig(name="nothing", lr=1.0),
            "optim.name: nothing returns a int; it must return a torch.optim.Optimizer.",
        ),
        (
            ForeignOptimConfig(name="signs", lr=1.0, options={"size": 3}),
            "optim.options: signs refuses {'size': 3} (TypeError: Signs.__init__() got an unexpected keyword argument "
            "'size'); set the options that it takes.",
        ),
    ],
)
def test_mistakes_are_one_sentence(config: ForeignOptimConfig, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_optimizer(config, named_parameters(), GROUP_OF)
    assert str(error.value) == sentence


def test_a_state_that_no_checkpoint_can_hold_is_refused_after_the_first_step() -> None:
    config = ForeignOptimConfig(name="signs", lr=1.0, options={"state_shape": [3]})
    optimizer = build_optimizer(config, named_parameters(), GROUP_OF)
    with pytest.raises(ConfigError, match=r"^optim.name: signs keeps 'memory', of shape \(3,\), for a parameter of"):
        optimizer.step()
