from itertools import pairwise

import pytest
import torch
from helpers import MODELS, model_config, random_batch, random_model
from torch import Tensor

from mythos.loop.remat import Remat
from mythos.loop.trace import token_correlation
from mythos.model.mythos import Mythos
from mythos.types import Batch

NUM_LOOPS, NUM_GRAD_LOOPS = 5, 3


def walk(model: Mythos, batch: Batch) -> tuple[list[Tensor], list[list[Tensor]], list[list[Tensor]]]:
    """States, inputs of every block with the last one's output, and expert indices of every loop, by a plain loop."""
    e, rotation, mask = model._inputs(batch)[:3]
    h = torch.zeros_like(e)
    states, inputs, expert_indices = [h], [], []
    for loop in range(NUM_LOOPS):
        with torch.set_grad_enabled(loop >= NUM_LOOPS - NUM_GRAD_LOOPS):
            x = model.core.injection(h, e)
            inputs.append([x])
            expert_indices.append([])
            for layer, block in enumerate(model.core.blocks):
                x, _, indices, _ = block(x, rotation, mask, model.core.router_bias[layer, loop])
                inputs[-1].append(x)
                expert_indices[-1].append(indices)
            h = x
        if h.requires_grad:
            h.retain_grad()
        states.append(h)
    nll, _ = model._read(h, model._inputs(batch), batch.targets_BS)
    nll.mean().backward()
    return states, inputs, expert_indices


@pytest.mark.parametrize("remat", ["none", "loop", "block"])
@pytest.mark.parametrize("name", MODELS)
def test_the_trace_equals_figures_of_the_states(name: str, remat: str) -> None:
    model = random_model(model_config(name))
    batch = random_batch(model.config, num_documents=2)
    states, inputs, _ = walk(model, batch)
    model.core.remat = Remat(remat)
    output = model(batch, NUM_LOOPS, NUM_GRAD_LOOPS, trace=True)
    result = output.trace
    assert not result.gradient_square_T.any()
    output.nll_XBS.mean().backward()

    def close(value: Tensor, expected: list[Tensor]) -> None:
        torch.testing.assert_close(value, torch.stack(expected).detach(), rtol=1e-4, atol=1e-6)

    changes = [new - old for old, new in pairwise(states)]
    assert result.num_rows_T.tolist() == [len(batch.tokens_BS)] * NUM_LOOPS
    close(result.state_norm_T, [h.square().mean(-1).sqrt().mean() for h in states[1:]])
    ratios = [change.norm(dim=-1) / h.norm(dim=-1) for change, h in zip(changes, states[1:], strict=True)]
    close(result.relative_change_T, [ratio.mean() for ratio in ratios])
    cosines = [(old * new).sum(-1) / (old.norm(dim=-1) * new.norm(dim=-1)) for old, new in pairwise(states[1:])]
    close(result.cosine_T[1:], [cosine.mean() for cosine in cosines])
    assert result.cosine_T[0] == 0  # the state before the first loop is zero
    bends = [(new - old).norm(dim=-1) / new.norm(dim=-1) for old, new in pairwise(changes)]
    close(result.curvature_ratio_T[1:], [bend.mean() for bend in bends])
    close(result.token_correlation_T, [token_correlation(h).mean() for h in states[1:]])
    for layer in range(len(model.core.blocks)):
        ratios = [(x[layer + 1] - x[layer]).norm(dim=-1) / x[layer].norm(dim=-1) for x in inputs]
        close(result.update_norm_TL[:, layer], [ratio.mean() for ratio in ratios])
    with_gradient = states[-NUM_GRAD_LOOPS:]
    close(result.gradient_square_T[-NUM_GRAD_LOOPS:], [h.grad.square().sum() for h in with_gradient])
    assert result.num_grad_rows_T.tolist() == [0, 0, 3, 3, 3]
    assert not result.gradient_square_T[:-NUM_GRAD_LOOPS].any()
    assert (result.experts is None) == (name == "debug-dense")


def test_expert_figures_are_those_of_the_expert_indices() -> None:
    model = random_model(model_config("debug"))
    model.core.router_bias.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    batch = random_batch(model.config)
    _, _, expert_indices = walk(model, batch)
    result = model(batch, NUM_LOOPS, trace=True).trace.experts
    for layer in range(len(model.core.blocks)):
        sets = [[set(token) for token in expert_indices[loop][layer].tolist()] for loop in range(NUM_LOOPS)]
        for loop, (old, new) in enumerate(pairwise(sets), start=1):
            same = sum(a == b for a, b in zip(old, new, strict=True)) / len(new)
            assert result.identical_TL[loop, layer].item() == pytest.approx(same, rel=1e-6)
        unions = [len(set().union(*(loop[token] for loop in sets))) for token in range(len(sets[0]))]
        assert result.path_diversity_TL[-1, layer].item() == pytest.approx(sum(unions) / len(unions) / 2, rel=1e-6)
    assert 0 < result.identical_TL[1:].mean() < 1


def test_evaluation_traces_every_loop_without_gradients() -> None:
    model = random_model(model_config("debug"))
    with torch.no_grad():
        result = model(random_batch(model.config), 4, trace=True).trace
    assert not result.num_grad_rows_T.any()
    assert all(not part.requires_grad for part in result if isinstance(part, Tensor))
