"""Initial values: one table for every parameter, one random stream for each (seed, parameter name)."""

import hashlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Final

import torch
from torch import Generator, Tensor, nn

from mythos.config.model import ModelConfig
from mythos.config.part_spec import load_object
from mythos.config.parts import Part, parts_of

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


def _identity(weight: Tensor, config: ModelConfig, generator: Generator) -> None:
    weight.copy_(torch.eye(config.dim))


RULES: Final[dict[str, Rule]] = {
    "ones": _ones,
    "zeros": _zeros,
    "embedding": _embedding,
    "input": _input,
    "output": _output,
    "identity": _identity,
}
"""Rules by name, as loop parts request them."""
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
)
"""Pattern of the parameter's name, and rule; exactly one row, here or of a loop part, matches each parameter."""


@torch.no_grad()
def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter; the values depend on (seed, name, shape) only."""
    for name, parameter in model.named_parameters():
        generator = Generator().manual_seed(_stream(seed, name))
        value = torch.empty(parameter.shape, dtype=torch.float32)
        rule_for(name, config)(value, config, generator)
        parameter.copy_(value)


def rule_for(name: str, config: ModelConfig) -> Rule:
    """Return the only rule of the table, or of the loop parts, that matches a parameter's name."""
    rules = [rule for pattern, rule in (*TABLE, *_rules_of_parts(config)) if fnmatchcase(name, pattern)]
    assert len(rules) == 1, f"{len(rules)} rows of the table of initial values fit {name}"
    return rules[0]


def _stream(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")


def _rules_of_parts(config: ModelConfig) -> Iterator[tuple[str, Rule]]:
    for part in parts_of(config):
        for pattern, name in part.parameters(config):
            rule = part.spec.initial_values[name]
            yield pattern, RULES[rule] if rule in RULES else _own_rule(rule, part)


def _own_rule(path: str, part: Part) -> Rule:
    """Return a part's own function as a rule."""
    fill = load_object(path)
    return lambda weight, config, generator: fill(weight, part.config, generator)
