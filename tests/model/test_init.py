from dataclasses import replace

import pytest
import torch
from helpers import MODELS, model_config

from mythos.config.halting import PonderHalting
from mythos.config.injection import AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.model import HeadConfig, ModelConfig
from mythos.model.init import TABLE, initialize, rule_for
from mythos.model.mythos import Mythos


def variants() -> list[ModelConfig]:
    """Configurations that together have every parameter."""
    base = [model_config(name) for name in MODELS]
    mla = model_config("debug-mla").attention
    return [
        *base,
        replace(base[0], injection=LinearInjection(), head=HeadConfig(tied=False)),
        replace(base[0], injection=AdditiveInjection(), norm_position="sandwich"),
        replace(base[0], injection=DiagonalInjection(update_rule="parallel")),
        replace(base[0], attention=replace(mla, query_rank=None)),
    ]


def test_every_parameter_matches_one_row_and_every_row_is_used() -> None:
    used = set()
    for config in variants():
        for name, _ in Mythos(config, PonderHalting()).named_parameters():
            used.add(rule_for(name, config))
    assert {rule for _, rule in TABLE} <= used


def test_values_depend_on_seed_and_name_only() -> None:
    dense, moe = Mythos(model_config("debug-dense")), Mythos(model_config("debug"))
    initialize(dense, dense.config, seed=1)
    initialize(moe, moe.config, seed=1)
    ours, theirs = dict(dense.named_parameters()), dict(moe.named_parameters())
    shared = ours.keys() & theirs.keys()
    assert "core.blocks.1.attention.q_proj.weight" in shared
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    initialize(dense, dense.config, seed=2)
    assert not torch.equal(ours["embedding.weight"], theirs["embedding.weight"])


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_scales_are_the_configured_ones(scale: float) -> None:
    config = model_config("debug", vocab_size=4096, output_scale=scale)
    model = Mythos(config)
    initialize(model, config, seed=0)
    assert model.embedding.weight.std().item() == pytest.approx(config.embedding_std, rel=0.02)
    block = model.core.blocks[0]
    assert block.ffn.experts.w1.std().item() == pytest.approx(config.dim**-0.5, rel=0.05)
    assert block.ffn.experts.w2.std().item() == pytest.approx(scale * 32**-0.5, rel=0.05)
    assert torch.equal(model.core.injection.input_matrix, torch.eye(config.dim))
    assert not model.core.router_bias.any()
