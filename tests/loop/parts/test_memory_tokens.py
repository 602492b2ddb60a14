"""Memory tokens: their equation in every layer, and that they contain no text."""

import pytest
import torch
from helpers import MODELS, gradients, random_batch, relative_error
from part_pairs import NUM_LOOPS, pair, state_and_gradients
from torch import Tensor
from torch.nn.functional import rms_norm

from mythos.config.loop_parts.memory_tokens import MemoryTokensConfig
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.attention_part import AttentionPart
from mythos.layers.heads import norm_and_rotate
from mythos.loop.part import LoopState

SMALL = MemoryTokensConfig(num_tokens=5, num_heads=3, head_dim=7)


class Naive(AttentionPart):
    """Attention of a layer's queries over keys and values of the registers, by one softmax; no part of the package."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = [layer]
        self.memory: list[Tensor] = []

    def project(self, x_BSD: Tensor, heads: tuple[Tensor, ...], inputs) -> tuple[Tensor, ...]:
        self.rotated_BSHP = norm_and_rotate(heads[0], self.layer[0].q_norm, self.rotation)
        return heads

    def attend_further(self, mixed_BSHP: Tensor, attend, mask, inputs) -> Tensor:
        part, layer = self.own, self.layer[0]
        normed_MD = rms_norm(self.memory[-1], self.memory[-1].shape[-1:], part.norm_m.weight, eps=1e-6)
        key_MGP = layer.k_norm((normed_MD @ layer.k_proj.weight.T).unflatten(-1, (layer.num_kv_heads, -1)))
        value_MGP = (normed_MD @ layer.v_proj.weight.T).unflatten(-1, (layer.num_kv_heads, -1))
        group = layer.num_heads // layer.num_kv_heads
        key_MHP, value_MHP = (each.repeat_interleave(group, 1) for each in (key_MGP, value_MGP))
        score_BSHM = torch.einsum("bshp,mhp->bshm", self.rotated_BSHP, key_MHP) * key_MHP.shape[-1] ** -0.5
        read_BSHP = torch.einsum("bshm,mhp->bshp", score_BSHM.softmax(-1), value_MHP)
        return mixed_BSHP + torch.tanh(part.gate.weight)[:, None] * read_BSHP


def updated(memory_MD: Tensor, update: torch.nn.Module) -> Tensor:
    """m + W_o attend(W_q n, W_k n, W_v n) with three heads."""
    normed_MD = rms_norm(memory_MD, memory_MD.shape[-1:], update.norm_m.weight, eps=1e-6)
    query, key, value = (normed_MD @ update.heads.weight.T).view(5, 3, 3, 7).unbind(1)
    weight = (torch.einsum("mhp,nhp->hmn", query, key) / 7**0.5).softmax(-1)
    return memory_MD + torch.einsum("hmn,nhp->mhp", weight, value).flatten(1) @ update.up.weight.T


@pytest.mark.parametrize("name", ["debug", "debug-dense"])
def test_every_layer_reads_the_registers_of_the_loop(name: str) -> None:
    model, without = pair(SMALL, name=name)
    part, num_layers = model.core.parts[0], len(model.core.blocks)
    naive = []
    for ours, theirs in zip(model.core.blocks, without.core.blocks, strict=True):
        assert isinstance(theirs.attention, GroupedQueryAttention)
        naive.append(Naive(theirs.attention))
        theirs.attention.part = naive[-1]
        naive[-1].own = ours.attention.part.parts[0]
    batch = random_batch(model.config, num_documents=2)
    inputs = without._inputs(batch)
    h_BSD, memory_MD = torch.zeros_like(inputs.e_BSD), part.tokens.weight
    for loop in range(NUM_LOOPS):
        memory_MD = updated(memory_MD, part.update)
        for each in naive:
            each.memory.append(memory_MD)
            each.rotation = inputs.rotation
        state = LoopState(h_BSD, layer_carries=((),) * num_layers)
        h_BSD = without.core.step(state, inputs._replace(loop=loop))[0].h_BSD
    expected, of_rest = state_and_gradients(without, h_BSD)
    of_part = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    found, of_all = state_and_gradients(model, model(batch, NUM_LOOPS).state_BSD)
    assert relative_error(found, expected) < 1e-5
    for key, gradient in (of_rest | of_part).items():
        if ".part.own" not in key:
            assert relative_error(of_all[key], gradient) < 1e-4, key


@pytest.mark.parametrize("name", MODELS)
def test_registers_depend_on_the_loop_alone(name: str) -> None:
    """They are equal for all sequences and all texts, and change from loop to loop."""
    model, _ = pair(SMALL, name=name)
    part, carries = model.core.parts[0], []
    for seed in (0, 1):
        inputs = model._inputs(random_batch(model.config, seed=seed, num_documents=2))
        state, of_batch = model._start(inputs), []
        for loop in range(3):
            of_batch.append(part.for_blocks(state.carries[0]))
            state = model.core.step(state, inputs._replace(loop=loop))[0]
        carries.append(torch.stack(of_batch))
    assert carries[0].shape == (3, 3, 5, 32)
    torch.testing.assert_close(carries[0][0], updated(part.tokens.weight, part.update).expand(3, 5, 32))
    assert torch.equal(carries[0], carries[1])
    torch.testing.assert_close(carries[0][:, :1].expand_as(carries[0]), carries[0])
    assert relative_error(carries[0][1], carries[0][0]) > 1e-2


def test_every_register_reaches_the_first_token_of_a_document() -> None:
    model, _ = pair(SMALL, name="debug-dense", initial_state="zero")
    model(random_batch(model.config, num_documents=3), 1).state_BSD[:, 0].square().sum().backward()
    assert (gradients(model)["core.parts.0.tokens.weight"].norm(dim=1) > 0).all()


def test_one_loop_with_gradients_reaches_every_weight() -> None:
    model, _ = pair(SMALL)
    for num_loops in (1, 3):
        model.zero_grad()
        model(random_batch(model.config), num_loops, 1).nll_XBS.sum().backward()
        assert all(value.grad is not None and value.grad.any() for value in model.core.parts.parameters())
