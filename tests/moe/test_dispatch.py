import pytest
import torch
from helpers import fill, gradients, relative_error

from mythos.config.model import MoEConfig
from mythos.moe import dispatch
from mythos.moe.layer import MoE


def both_paths(layer: MoE, x: torch.Tensor, bias: torch.Tensor) -> list[list[torch.Tensor]]:
    """Outputs, input gradients and parameter gradients of the grouped and the naive path."""
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    results = []
    for path in (dispatch.grouped, dispatch.naive):
        layer.zero_grad()
        layer.run_experts = path
        leaf = x.clone().requires_grad_()
        y, stats, _ = layer(leaf, bias)
        (y * weight).sum().backward()
        results.append([y.detach(), leaf.grad, *gradients(layer).values(), stats.counts_E.float()])
    return results


@pytest.mark.parametrize("num_tokens", [1, 7, 33])
@pytest.mark.parametrize(("num_experts", "num_active"), [(1, 1), (5, 2), (7, 7), (64, 3)])
@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_grouped_equals_naive(num_tokens: int, num_experts: int, num_active: int, score: str) -> None:
    config = MoEConfig(num_experts=num_experts, num_active=num_active, hidden_dim=24, num_shared=1, score=score)
    layer = MoE(config, dim=40)
    fill(layer)
    x = torch.randn(1, num_tokens, 40, generator=torch.Generator().manual_seed(1))
    grouped, naive = both_paths(layer, x, torch.zeros(num_experts))
    for ours, theirs in zip(grouped, naive, strict=True):
        assert relative_error(ours, theirs) < 1e-6


def test_grouped_equals_naive_when_the_bias_empties_experts() -> None:
    layer = MoE(MoEConfig(num_experts=6, num_active=2, hidden_dim=8, num_shared=0), dim=16)
    fill(layer)
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))
    bias = torch.tensor([0.0, 9.0, 0.0, 9.0, 0.0, 0.0])
    grouped, naive = both_paths(layer, x, bias)
    assert grouped[-1].tolist() == [0, 18, 0, 18, 0, 0]
    for ours, theirs in zip(grouped, naive, strict=True):
        assert relative_error(ours, theirs) < 1e-6


def test_bfloat16_autocast_reaches_the_grouped_products() -> None:
    layer = MoE(MoEConfig(num_experts=4, num_active=2, hidden_dim=16, num_shared=1), dim=16)
    fill(layer)
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))
    exact, *_ = layer(x, torch.zeros(4))
    with torch.autocast("cpu", torch.bfloat16):
        rough, *_ = layer(x, torch.zeros(4))
    assert rough.dtype == torch.bfloat16
    assert 1e-4 < relative_error(rough, exact) < 2e-2
