"""Attention over depth: its equation, its gradients, and slots without mass."""

import math

import numpy as np
import pytest
import torch
from helpers import MODELS, random_batch, relative_error
from part_pairs import NUM_LOOPS, pair, state_and_gradients, unrolled
from torch import Tensor
from torch.nn.functional import rms_norm

from mythos.config.loop_parts.depth_attention import DepthAttentionConfig
from mythos.loop.parts.slot_attention import attend_to_slots

SMALL = {"num_heads": 3, "head_dim": 5}


def naive(query_BSHP: Tensor, slots: list[Tensor]) -> Tensor:
    """One softmax over all slots; zero without slots."""
    if not slots:
        return torch.zeros_like(query_BSHP)
    key_BSNHP, value_BSNHP = torch.stack(slots, 2).unbind(3)
    score_BSNH = torch.einsum("bshp,bsnhp->bsnh", query_BSHP, key_BSNHP) / math.sqrt(query_BSHP.shape[-1])
    return torch.einsum("bsnh,bsnhp->bshp", score_BSNH.softmax(2), value_BSNHP)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_slots", [1, 3, 8])
def test_each_token_attends_to_its_own_states_of_the_last_loops(name: str, num_slots: int) -> None:
    model, without = pair(DepthAttentionConfig(num_slots=num_slots, **SMALL), name=name)
    part = model.core.parts[0]
    slots: list[Tensor] = []

    def equation(loop: int, h_BSD: Tensor, e_BSD: Tensor, rest) -> Tensor:
        normed_BSD = rms_norm(h_BSD, h_BSD.shape[-1:], part.project.norm_h.weight, eps=1e-6)
        query_BSHP = (normed_BSD @ part.project.query.weight.T).view(3, 13, 3, 5)
        read_BSHP = naive(query_BSHP, slots[-num_slots:])
        slots.append((normed_BSD @ part.project.memory.weight.T).view(3, 13, 2, 3, 5))
        return rest(h_BSD + torch.tanh(part.write.opening) * (read_BSHP.flatten(2) @ part.write.up.weight.T))

    batch = random_batch(without.config, num_documents=2)
    expected = unrolled(without, equation, torch.zeros(3, 13, 32))
    expected, of_rest = state_and_gradients(without, expected)
    of_part = {f"core.parts.0.{key}": value.grad.clone() for key, value in part.named_parameters()}
    part.zero_grad()
    found, of_all = state_and_gradients(model, model(batch, NUM_LOOPS).state_BSD)
    assert relative_error(found, expected) < 1e-5
    assert len(of_part) == 5
    for key, gradient in (of_rest | of_part).items():
        assert relative_error(of_all[key], gradient) < 1e-4, key


@pytest.mark.parametrize("is_bf16", [False, True])
def test_slots_that_are_not_valid_have_no_mass_and_no_gradient(is_bf16: bool) -> None:
    """The sequences have 0, 1 and 3 valid slots of 4; the content of the others does not matter."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    query = torch.randn(3, 7, 3, 5, generator=generator).to(dtype).requires_grad_()
    slots = [torch.randn(3, 7, 2, 3, 5, generator=generator).to(dtype) for _ in range(4)]
    valid_NB = torch.arange(4)[:, None] < torch.tensor([0, 1, 3])
    slots = [
        torch.where(valid_NB[index].view(3, 1, 1, 1, 1), slot, 1e30).requires_grad_()
        for index, slot in enumerate(slots)
    ]
    read = attend_to_slots(query, valid_NB.view(4, 3, 1, 1), tuple(slots))
    grad = torch.randn(read.shape, generator=generator)
    found = torch.autograd.grad(read, (query, *slots), grad.to(dtype))
    exact = [each.detach().float().requires_grad_() for each in (query, *slots)]
    rows = [naive(exact[0][row : row + 1], [each[row : row + 1] for each in exact[1 : 1 + num]]) for row, num in
            enumerate([0, 1, 3])]  # fmt: skip
    expected = torch.autograd.grad(torch.cat(rows), exact, grad, allow_unused=True)
    tolerance = 1e-2 if is_bf16 else 1e-6
    assert not read[0].any()
    assert relative_error(read, torch.cat(rows)) < tolerance
    assert relative_error(found[0], expected[0]) < tolerance
    for index in range(4):
        assert not found[1 + index][~valid_NB[index]].any()
        if index < 3:
            assert relative_error(found[1 + index], expected[1 + index]) < tolerance
    assert not found[0][0].any()


def test_one_loop_with_gradients_reaches_every_weight() -> None:
    """Engines expect a gradient, of zeros if need be, for every parameter."""
    model, _ = pair(DepthAttentionConfig())
    for num_loops in (1, 3):
        model.zero_grad()
        model(random_batch(model.config), num_loops, 1).nll_XBS.sum().backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in model.core.parts.parameters())


def test_sequences_of_their_own_depth_read_only_their_own_loops() -> None:
    model, _ = pair(DepthAttentionConfig(num_slots=2), initial_state="zero")
    batch = random_batch(model.config)
    loops_B = np.array([1, 4, 2])
    together = model(batch, 4, loops_B=loops_B).state_BSD
    for row, num_loops in enumerate(loops_B):
        alone = model(batch, int(num_loops)).state_BSD[row]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)
