"""The interface inside attention: a part of another package changes values, or adds keys and values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attention_parts import ENTRIES, PACKAGE
from helpers import gradients, model_config, random_batch, random_model, relative_error
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from mythos.account.parameters import count_parameters
from mythos.config.parts import ForeignPart, LoopConfig, parts_of
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.attention_part import AttentionParts
from mythos.loop.remat import Remat
from mythos.model.init import initialize
from mythos.model.mythos import Mythos
from mythos.optim.groups import grouping
from mythos.types import take_rows

MODELS = ("debug", "debug-mla")
RESIDUAL, PAST = (LoopConfig(parts=(ForeignPart(name=name),)) for name in ("residual", "past"))
BOTH = LoopConfig(parts=(*RESIDUAL.parts, *PAST.parts))
each_part = pytest.mark.parametrize("loop", [RESIDUAL, PAST, BOTH], ids=["residual", "past", "both"])
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def package(install) -> None:
    install(*PACKAGE, loop_parts=ENTRIES)


def without(model: Mythos) -> Mythos:
    """The same model without the parts."""
    bare = Mythos(replace(model.config, loop=LoopConfig()))
    bare.load_state_dict({key: value for key, value in model.state_dict().items() if ".part." not in key})
    return bare


def trained(model: Mythos, num_loops: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    loss = model(random_batch(model.config, num_documents=2), num_loops, 3, noise_seed=1).nll_XBS.sum()
    loss.backward()
    return loss.detach(), gradients(model)


@each_model
def test_a_gate_of_zero_is_the_model_without_the_part_bitwise(name: str) -> None:
    model = random_model(model_config(name, loop=RESIDUAL))
    gates = [parameter for key, parameter in model.named_parameters() if key.endswith("part.parts.0.mix.weight")]
    assert len(gates) == len(model.core.blocks)
    with torch.no_grad():
        for gate in gates:
            gate.zero_()
    (ours, our_gradients), (theirs, their_gradients) = trained(model), trained(without(model))
    assert torch.equal(ours, theirs)
    assert all(torch.equal(our_gradients[key], gradient) for key, gradient in their_gradients.items())
    assert all(gate.grad.any() for gate in gates)


@each_model
def test_further_keys_change_every_loop_but_the_first(name: str) -> None:
    model = random_model(model_config(name, loop=PAST))
    for num_loops in (1, 2):
        (ours, _), (theirs, _) = trained(model, num_loops), trained(without(model), num_loops)
        assert (relative_error(ours, theirs) < 1e-6) == (num_loops == 1)


@each_part
@each_model
def test_the_specs_name_the_parameters_and_the_carry(name: str, loop: LoopConfig) -> None:
    config = model_config(name, loop=loop)
    model, group_of = Mythos(config), grouping(config)
    initialize(model, config, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(config).total
    for key, parameter in model.named_parameters():
        if ".part." in key:
            assert not parameter.any()
            assert group_of(key) == "other"
    e_BSD = torch.zeros(2, 5, config.dim)
    state = model.core.start(e_BSD, e_BSD)
    num_elements = sum(each.numel() for each in tree_leaves((state.carries, state.layer_carries)))
    assert num_elements == 2 * 5 * sum(part.spec.carry_elements(part.config, config) for part in parts_of(config))


@each_part
@each_model
@pytest.mark.parametrize("remat", ["loop", "block", "offload"])
def test_recomputed_gradients_equal_kept_ones(name: str, loop: LoopConfig, remat: str) -> None:
    model = random_model(model_config(name, loop=loop))
    kept, expected = trained(model)
    model.zero_grad()
    model.core.remat = Remat("loop" if remat == "offload" else remat, offload_states=remat == "offload")
    again, found = trained(model)
    assert torch.equal(kept, again)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        assert relative_error(found[key], gradient) < 1e-6, key


@each_part
@each_model
def test_sequences_of_their_own_depth_equal_each_alone(name: str, loop: LoopConfig) -> None:
    loops_B = np.array([2, 4, 1])
    model = random_model(model_config(name, loop=loop))
    batch = random_batch(model.config, num_documents=2)
    together_BS = model(batch, 4, loops_B=loops_B, noise_seed=1).nll_XBS[0]
    rows = [take_rows(batch, slice(row, row + 1)) for row in range(3)]
    alone = [model(row, int(num), noise_seed=1).nll_XBS[0] for row, num in zip(rows, loops_B, strict=True)]
    assert relative_error(together_BS, torch.cat(alone)) < 1e-6


@each_part
@each_model
def test_decoding_token_by_token_equals_the_full_forward(name: str, loop: LoopConfig) -> None:
    model = random_model(model_config(name, loop=loop))
    batch = random_batch(model.config)
    cache = model.new_cache(4, None)
    logits_BSV = torch.cat([model.decode(token_B1, cache) for token_B1 in batch.tokens_BS.split(1, dim=1)], 1)
    nll_BS = functional.cross_entropy(logits_BSV.transpose(1, 2), batch.targets_BS, reduction="none")
    assert relative_error(nll_BS, model(batch, 4).nll_XBS[0]) < 1e-5


def test_a_layer_without_parts_has_the_null_object() -> None:
    attention = random_model(model_config("debug")).core.blocks[0].attention
    assert isinstance(attention, GroupedQueryAttention)
    assert not isinstance(attention.part, AttentionParts)
    assert not list(attention.part.parameters())
