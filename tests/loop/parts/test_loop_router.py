"""A router for each loop: its equation, how far routing differs between loops, and its refusals."""

from itertools import pairwise

import pytest
import torch
from helpers import model_config, random_batch, relative_error, run_config
from part_pairs import pair
from torch import Tensor

from mythos.config.base import ConfigError
from mythos.config.loop_parts.loop_router import LoopRouterConfig
from mythos.config.parts import LoopConfig
from mythos.loop.part import LoopState
from mythos.model.init import initialize
from mythos.model.mythos import Mythos

NUM_LOOPS, NUM_ROUTERS = 5, 3


def test_each_loop_has_its_own_router() -> None:
    """R + N_t in every loop, against a model whose routers are replaced; later loops read the last row."""
    model, without = pair(LoopRouterConfig(num_routers=NUM_ROUTERS))
    inputs = without._inputs(random_batch(without.config, num_documents=2))
    h_BSD = torch.zeros_like(inputs.e_BSD)
    shared_LED = [block.ffn.router.gate.weight.detach().clone() for block in without.core.blocks]
    with torch.no_grad():
        for loop in range(NUM_LOOPS):
            for ours, theirs, router_ED in zip(model.core.blocks, without.core.blocks, shared_LED, strict=True):
                table_TED = ours.router_part.parts[0].table.weight
                change_ED = table_TED[min(loop, NUM_ROUTERS - 1) - 1] if loop else torch.zeros_like(router_ED)
                theirs.ffn.router.gate.weight.copy_(router_ED + change_ED)
            state = LoopState(h_BSD, layer_carries=((),) * len(without.core.blocks))
            h_BSD = without.core.step(state, inputs._replace(loop=loop))[0].h_BSD
        found = model(random_batch(model.config, num_documents=2), NUM_LOOPS).state_BSD
    assert relative_error(found, h_BSD) < 1e-5


def repeated(config: LoopConfig) -> float:
    """Share of a new model's experts that a token keeps from one loop to the next, between loops 2 and 4."""
    model = Mythos(model_config(loop=config))
    initialize(model, model.config, seed=1)
    batch = random_batch(model.config, batch=8, length=64)
    inputs = model._inputs(batch)
    state, experts = model.core.start(torch.zeros_like(inputs.e_BSD), inputs.e_BSD), []
    for loop in range(4):
        state, stats = model.core.step(state, inputs._replace(loop=loop))
        experts.append(stats.expert_indices[0].long())
    return float(torch.stack([kept(*each) for each in pairwise(experts[1:])]).mean())


def kept(before_NK: Tensor, after_NK: Tensor) -> Tensor:
    return (before_NK[:, :, None] == after_NK[:, None, :]).any(-1).float().mean()


@torch.no_grad()
def test_a_new_model_keeps_as_few_experts_as_random_routers_do() -> None:
    """Two of four experts at random: half. One shared router keeps nearly all."""
    assert repeated(LoopConfig()) > 0.95
    assert 0.4 < repeated(LoopConfig(parts=(LoopRouterConfig(),))) < 0.6


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["model=debug-dense", "model/loop=loop_router"],
            "model.loop.parts.0: loop_router changes routers, but model.core_ffn.kind is dense; set it to moe, or "
            "leave the part out.",
        ),
        (["model.loop.parts=[{kind: loop_router, num_routers: 1}]"], "model.loop.parts.0.num_routers: "),
        (
            ["model/loop=loop_router", "model.max_loops=1", "depth=fixed", "depth.num_loops=1"],
            "model.loop.parts.0: loop_router changes the loops after the first, but model.max_loops is 1",
        ),
    ],
)
def test_mistakes_are_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_config(*overrides)
    assert sentence in str(error.value)
