"""Initial values: one table for every parameter, one random stream for each (seed, parameter name)."""

import hashlib
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final

import torch
from torch import Generator, Tensor, nn

from mythos.config.model import AdditiveInjection, ModelConfig
from mythos.loop.injection import initial_dt, initial_dt_bias

Rule = Callable[[Tensor, ModelConfig, Generator], None]


def _ones(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.fill_(1.0)


def _zeros(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.zero_()


def _embedding(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.normal_(std=config.embedding_std, generator=generator)


def _input(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)


def _output(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.normal_(std=config.output_scale * weight.shape[-1] ** -0.5, generator=generator)


def _dt_bias(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.fill_(initial_dt_bias(_decay(config)))


def _identity(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.copy_(torch.eye(config.dim))


def _adapter(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    identity = torch.eye(config.dim)
    decay = _decay(config)
    weight.copy_(torch.cat((decay * identity, initial_dt(decay) * identity), dim=1))


TABLE: Final[tuple[tuple[str, Rule], ...]] = (
    ("embedding.weight", _embedding),
    ("head.projection.weight", _embedding),
    ("*norm.weight", _ones),
    ("*.attention.[qkv]_proj.weight", _input),
    ("*.attention.*_down.weight", _input),
    ("*.attention.*_up.weight", _input),
    ("*.attention.k_rope.weight", _input),
    ("*.attention.o_proj.weight", _output),
    ("*.ffn.w[13].weight", _input),
    ("*.ffn.w2.weight", _output),
    ("*.ffn.router.gate.weight", _input),
    ("*.ffn.experts.w[13]", _input),
    ("*.ffn.experts.w2", _output),
    ("*.ffn.shared_experts.w[13].weight", _input),
    ("*.ffn.shared_experts.w2.weight", _output),
    ("halting.gate.w1", _input),
    ("halting.gate.w2", _zeros),
    ("halting.gate.bias", _zeros),
    ("core.injection.log_rate", _zeros),
    ("core.injection.dt_bias", _dt_bias),
    ("core.injection.input_matrix", _identity),
    ("core.injection.matrix", _adapter),
)
"""(pattern on the parameter's name, rule); exactly one row fits each parameter."""


@torch.no_grad()
def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter; the values depend on (seed, name, shape) and on nothing else."""
    for name, parameter in model.named_parameters():
        generator = Generator().manual_seed(_stream(seed, name))
        value = torch.empty(parameter.shape, dtype=torch.float32)
        rule_for(name)(value, config, generator)
        parameter.copy_(value)


def rule_for(name: str) -> Rule:
    """The one row of the table that fits a parameter's name."""
    rules = [rule for pattern, rule in TABLE if fnmatchcase(name, pattern)]
    assert len(rules) == 1, f"{len(rules)} rows of the table of initial values fit {name}"
    return rules[0]


def _stream(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")


def _decay(config: ModelConfig) -> float:
    assert not isinstance(config.injection, AdditiveInjection)
    return config.injection.initial_decay
