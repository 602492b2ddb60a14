from dataclasses import replace

import pytest
import torch
from helpers import MODELS, gradients, model_config, random_batch, random_model, relative_error
from torch import Tensor

from mythos.config.injection import AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.model import HeadConfig
from mythos.layers.rope import Rotation
from mythos.model.mythos import Mythos
from mythos.types import Batch, take_rows


def context(model: Mythos, batch: Batch) -> tuple[Rotation, Tensor, Tensor]:
    """Rotation, mask and e, as the forward computes them."""
    inputs = model._inputs(batch)
    return inputs.rotation, inputs.mask, inputs.e_BSD


def plain_stack(model: Mythos, x: Tensor, rotation: Rotation, mask: Tensor, batch: Batch) -> Tensor:
    """Core, coda and head as one stack of layers without a loop."""
    for layer, block in enumerate(model.core.blocks):
        x, *_ = block(x, rotation, mask, model.core.router_bias[layer, 0])
    for block in model.coda:
        x, *_ = block(x, rotation, mask)
    nll, _ = model.head(x, model.embedding.weight, batch.targets_BS)
    return nll


@pytest.mark.parametrize("name", MODELS)
def test_one_additive_loop_from_zero_is_the_plain_stack_bitwise(name: str) -> None:
    model = random_model(model_config(name, injection=AdditiveInjection(), initial_state="zero"))
    batch = random_batch(model.config, num_documents=3)
    rotation, mask, e = context(model, batch)
    assert torch.equal(model(batch, 1).nll_XBS[0], plain_stack(model, e, rotation, mask, batch))


@pytest.mark.parametrize("name", MODELS)
def test_one_diagonal_loop_is_the_plain_stack_fed_the_injected_state(name: str) -> None:
    model = random_model(model_config(name, initial_state="embedding"))
    batch = random_batch(model.config, num_documents=3)
    rotation, mask, e = context(model, batch)
    decay, gain = model.core.injection.decay_and_gain()
    u = decay * e + gain * (e @ model.core.injection.input_matrix.T)
    assert torch.equal(model(batch, 1).nll_XBS[0], plain_stack(model, u, rotation, mask, batch))


def test_the_parallel_update_rule_adds_the_residual_change_to_the_injected_state() -> None:
    config = model_config("debug-dense", injection=DiagonalInjection(update_rule="parallel"))
    model = random_model(replace(config, initial_state="embedding"))
    batch = random_batch(model.config)
    rotation, mask, e = context(model, batch)
    h = e
    for _ in range(3):
        start = x = model.core.parallel_norm(h + e)
        for layer, block in enumerate(model.core.blocks):
            x, *_ = block(x, rotation, mask, model.core.router_bias[layer, 0])
        h = model.core.injection(h, e) + (x - start)
    assert relative_error(model(batch, 3).state_BSD, h) < 1e-6


@pytest.mark.parametrize("injection", [DiagonalInjection(), LinearInjection(), AdditiveInjection()])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_all_loops_equal_full_backpropagation(name: str, injection) -> None:
    model = random_model(model_config(name, injection=injection))
    batch = random_batch(model.config, num_documents=2)
    result = []
    for num_grad_loops in (None, 3, 7):
        model.zero_grad()
        model(batch, 3, num_grad_loops, noise_seed=0).nll_XBS.mean().backward()
        result.append(gradients(model))
    assert result[0].keys() == dict(model.named_parameters()).keys()
    for name, full in result[0].items():
        assert torch.equal(full, result[1][name])
        assert torch.equal(full, result[2][name])


def test_truncated_gradients_equal_those_from_a_detached_state() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    output = model(batch, 5, 2)
    output.nll_XBS.mean().backward()
    truncated = gradients(model)
    model.zero_grad()
    _, _, e = context(model, batch)
    h = model(batch, 3).state_BSD.detach()
    inputs, state = model._inputs(batch), model.core.start(h, e)
    for loop in (3, 4):
        state, _ = model.core.step(state, inputs._replace(loop=loop))
    nll, _ = model._read(state.h_BSD, inputs, batch.targets_BS)
    nll.mean().backward()
    for name, expected in gradients(model).items():
        assert relative_error(truncated[name], expected) < 1e-6, name


def test_truncation_changes_gradients_but_not_the_loss() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    results = []
    for num_grad_loops in (1, 5):
        model.zero_grad()
        nll = model(batch, 5, num_grad_loops).nll_XBS
        nll.mean().backward()
        results.append((nll.detach(), gradients(model)["core.blocks.0.attention.q_proj.weight"]))
    assert torch.equal(results[0][0], results[1][0])
    assert relative_error(results[0][1], results[1][1]) > 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_exits_of_one_forward_equal_separate_forwards(name: str) -> None:
    model = random_model(model_config(name))
    batch = random_batch(model.config)
    together = model(batch, 6, exits=(0, 2, 5))
    for place, depth in enumerate((1, 3, 6)):
        assert torch.equal(together.nll_XBS[place], model(batch, depth).nll_XBS[0])
    assert torch.equal(together.exit_prob_XBS.sum(0), torch.ones_like(batch.targets_BS, dtype=torch.float32))


def loops_by_hand(model: Mythos, batch: Batch, num_loops: int, is_frozen: bool) -> tuple[list[Tensor], list]:
    """States and expert indices of every loop, the blocks called one by one."""
    rotation, mask, e = context(model, batch)
    states, expert_indices = [torch.zeros_like(e)], []
    for loop in range(num_loops):
        x, chosen = model.core.injection(states[-1], e), []
        for layer, block in enumerate(model.core.blocks):
            given = expert_indices[0][layer] if is_frozen and loop else None
            x, _, indices, _ = block(x, rotation, mask, model.core.router_bias[layer, loop], None, given)
            chosen.append(indices)
        states.append(x)
        expert_indices.append(chosen)
    return states, expert_indices


@torch.no_grad()
@pytest.mark.parametrize("name", ["debug", "debug-mla"])
def test_frozen_routing_equals_given_expert_indices_of_the_first_loop(name: str) -> None:
    model = random_model(model_config(name, initial_state="zero"))
    model.core.router_bias.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    batch = random_batch(model.config, num_documents=2)
    free, frozen = (model.unroll(batch, 3, freeze_routing=is_frozen) for is_frozen in (False, True))
    for result, is_frozen in ((free, False), (frozen, True)):
        states, expert_indices = loops_by_hand(model, batch, 3, is_frozen)
        assert all(map(torch.equal, result.states, states))
        assert all(
            torch.equal(torch.stack(a), torch.stack(b))
            for a, b in zip(result.expert_indices, expert_indices, strict=True)
        )
    assert torch.equal(free.states[-1], model(batch, 3).state_BSD)
    assert torch.equal(frozen.states[1], free.states[1])
    assert all(
        torch.equal(torch.stack(chosen), torch.stack(free.expert_indices[0])) for chosen in frozen.expert_indices
    )
    assert all(relative_error(frozen.states[loop], free.states[loop]) > 0.01 for loop in (2, 3))


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("name", MODELS)
def test_cached_decoding_equals_the_full_forward_at_every_depth(name: str, depth: int) -> None:
    model = random_model(model_config(name, max_loops=3))
    with torch.no_grad():
        model.core.router_bias.normal_(std=0.1)
    batch = random_batch(model.config, batch=2, length=11)
    cache = model.new_cache(depth, capacity=11)
    pieces = [model.decode(piece, cache) for piece in batch.tokens_BS.split((4, 1, 1, 3, 2), dim=1)]
    logits = torch.cat(pieces, 1)
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets_BS, reduction="none")
    assert relative_error(nll, model(batch, depth).nll_XBS[0]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_no_document_attends_to_another(name: str) -> None:
    model = random_model(model_config(name))
    batch = random_batch(model.config, batch=1, length=12)
    ids = torch.tensor([[0] * 5 + [1] * 7])
    place = torch.tensor([[*range(5), *range(7)]])
    batch = batch._replace(document_ids_BS=ids, positions_BS=place)
    other = batch.tokens_BS.clone()
    other[0, :5] = (other[0, :5] + 1) % model.config.vocab_size
    before, after = model(batch, 3).nll_XBS, model(batch._replace(tokens_BS=other), 3).nll_XBS
    assert relative_error(after[..., 5:], before[..., 5:]) < 1e-6
    assert relative_error(after[..., :5], before[..., :5]) > 1e-2


def test_trace_and_router_statistics_have_one_row_for_each_loop() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config, batch=2, length=9)
    output = model(batch, 4, 1, trace=True)
    assert output.trace.state_norm_T.shape == (4,)
    assert output.router_stats.counts_E.shape == (4, 2, 4)
    assert (output.router_stats.counts_E.sum(-1) == 2 * 9 * 2).all()
    rms = output.state_BSD.square().mean(-1).sqrt().mean()
    torch.testing.assert_close(output.trace.state_norm_T[-1], rms, rtol=1e-5, atol=0)
    plain = model(batch, 4, 1)
    assert plain.trace is None
    assert torch.equal(plain.nll_XBS, output.nll_XBS)


def test_router_bias_is_per_loop_and_its_last_row_serves_deeper_loops() -> None:
    model = random_model(model_config("debug", max_loops=2))
    batch = random_batch(model.config)
    model.core.router_bias[:, 1, 3] = 100.0
    counts = model(batch, 4).router_stats.counts_E[..., 3]
    everyone = batch.tokens_BS.numel()
    assert (counts[1:] == everyone).all()
    assert counts[0].min() < everyone


def test_noise_depends_on_the_sample_and_not_on_its_position_in_the_batch() -> None:
    model = random_model(model_config("debug", embedding_std=0.5))
    batch = random_batch(model.config, batch=3)
    turned = take_rows(batch, torch.arange(3).flip(0))
    ours, theirs = model(batch, 2, noise_seed=4).nll_XBS, model(turned, 2, noise_seed=4).nll_XBS.flip(1)
    assert relative_error(ours, theirs) < 1e-6
    assert relative_error(ours, model(batch, 2).nll_XBS) > 1e-3


def test_untied_head_and_soft_cap() -> None:
    config = model_config("debug-dense", head=HeadConfig(tied=False, soft_cap=2.0))
    model = random_model(config)
    batch = random_batch(config)
    spread = model.decode(batch.tokens_BS, model.new_cache(2, 13))
    assert spread.abs().max() <= 2.0
    assert "head.projection.weight" in dict(model.named_parameters())


def test_bfloat16_autocast_stays_close_to_fp32() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    exact = model(batch, 4).nll_XBS
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch, 4).nll_XBS
    assert rough.dtype == torch.float32
    assert relative_error(rough, exact) < 0.05
