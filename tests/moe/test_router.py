import math
from dataclasses import replace

import pytest
import torch

from mythos.config.model import MoEConfig
from mythos.moe.router import Router, observe, route

CONFIG = MoEConfig(num_experts=6, num_active=3, hidden_dim=8)


def logits(num_tokens: int = 50) -> torch.Tensor:
    return torch.randn(num_tokens, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_bias_affects_the_selection_but_not_the_weights(score: str) -> None:
    config = replace(CONFIG, score=score, normalize_weights=False)
    bias = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 5.0])
    routing = route(logits(), bias, config)
    assert (routing.expert_indices_NK == 5).any(-1).all()
    assert torch.equal(routing.weight_NK, routing.score_NE.gather(-1, routing.expert_indices_NK))
    assert routing.weight_NK.max() < 1


def test_selection_is_the_top_k_and_weights_sum_to_the_scale() -> None:
    routing = route(logits(), torch.zeros(6), replace(CONFIG, weight_scale=2.5))
    best = routing.score_NE.sort(-1, descending=True).indices[:, :3]
    assert torch.equal(routing.expert_indices_NK.sort(-1).values, best.sort(-1).values)
    torch.testing.assert_close(routing.weight_NK.sum(-1), torch.full((50,), 2.5), rtol=1e-6, atol=0)


def test_given_expert_indices_are_weighted_by_the_current_scores() -> None:
    expert_indices = torch.tensor([[0, 4, 2]]).expand(50, 3)
    routing = route(
        logits(), torch.tensor([9.0, 0.0, 0.0, 0.0, 0.0, 0.0]), replace(CONFIG, score="sigmoid"), expert_indices
    )
    assert torch.equal(routing.expert_indices_NK, expert_indices)
    score = 1 / (1 + (-logits()[:, [0, 4, 2]]).exp())
    torch.testing.assert_close(routing.weight_NK, score / score.sum(-1, keepdim=True))


def test_statistics_of_a_uniform_router() -> None:
    flat = torch.zeros(2, 5, 6)
    config = replace(CONFIG, score="softmax")
    stats = observe(flat, route(flat.view(10, 6), torch.zeros(6), config), torch.zeros(6, 0))
    assert stats.counts_E.sum() == 2 * 5 * 3
    assert stats.z_loss.item() == pytest.approx(10 * math.log(6) ** 2, rel=1e-6)
    assert stats.balance_loss.item() == pytest.approx(2.0, rel=1e-6)
    assert stats.entropy.item() == pytest.approx(10 * math.log(6), rel=1e-6)


def test_balance_loss_grows_when_one_expert_receives_all_tokens() -> None:
    config = replace(CONFIG, score="softmax", num_active=1)
    spiked = torch.zeros(3, 4, 6)
    spiked[..., 2] = 10.0
    stats = observe(spiked, route(spiked.view(12, 6), torch.zeros(6), config), torch.zeros(6, 0))
    share = math.exp(10) / (math.exp(10) + 5)
    assert stats.balance_loss.item() == pytest.approx(3 * 6 * share, rel=1e-5)


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("level", "spread"), [(0.0, 1.0), (-19.5, 1.0), (-60.0, 8.0), (-110.0, 1.0), (-5000.0, 3.0)])
def test_weights_and_statistics_are_those_of_float64_where_scores_underflow(
    score: str, level: float, spread: float
) -> None:
    config = replace(CONFIG, score=score)
    x = (level + spread * logits(10)).requires_grad_()
    # a bias that makes the selection prefer experts of low scores
    expert_indices = x.detach().topk(3, largest=False).indices
    routing = route(x, torch.zeros(6), config, expert_indices)
    stats = observe(x.view(2, 5, 6), routing, torch.zeros(6, 0))
    weighing = torch.tensor([1.0, -2.0, 3.0])
    loss = (routing.weight_NK * weighing).sum() + stats.balance_loss
    (gradient,) = torch.autograd.grad(loss, x)

    exact_x = x.detach().double().requires_grad_()
    log_score = exact_x.log_softmax(-1) if score == "softmax" else torch.nn.functional.logsigmoid(exact_x)
    weight = log_score.gather(-1, expert_indices).softmax(-1)
    share = log_score.softmax(-1)
    load = torch.nn.functional.one_hot(expert_indices, 6).sum(1).view(2, 5, 6).sum(1) * (6 / 15)
    balance = (load * share.view(2, 5, 6).mean(1)).sum()
    (exact,) = torch.autograd.grad((weight * weighing).sum() + balance, exact_x)
    torch.testing.assert_close(routing.weight_NK.double(), weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-5)
    assert stats.balance_loss.item() == pytest.approx(balance.item(), rel=1e-5)
    assert stats.entropy.item() == pytest.approx(torch.special.entr(share).sum().item(), rel=1e-5)
    assert gradient.abs().sum() > 0


def test_statistics_of_micro_batches_add_up() -> None:
    router = Router(CONFIG, dim=8)
    torch.nn.init.normal_(router.gate.weight)
    x = torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(2))
    _, whole = router(x, torch.zeros(6))
    _, first = router(x[:1], torch.zeros(6))
    _, rest = router(x[1:], torch.zeros(6))
    for total, one, other in zip(whole, first, rest, strict=True):
        torch.testing.assert_close(total, one + other, rtol=1e-6, atol=0)


def test_each_sequence_may_have_its_own_bias() -> None:
    router = Router(CONFIG, dim=8)
    torch.nn.init.normal_(router.gate.weight)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(2))
    bias = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    together, _ = router(x, bias)
    for row in range(3):
        alone, _ = router(x[row : row + 1], bias[row])
        assert torch.equal(together.expert_indices_NK[5 * row : 5 * row + 5], alone.expert_indices_NK)
    same, _ = router(x, bias[:1].expand(3, -1))
    assert torch.equal(same.expert_indices_NK, router(x, bias[0])[0].expert_indices_NK)
    assert not torch.equal(same.expert_indices_NK, together.expert_indices_NK)


def test_scores_are_fp32_under_autocast() -> None:
    router = Router(CONFIG, dim=8)
    torch.nn.init.normal_(router.gate.weight)
    x = torch.randn(1, 3, 8)
    exact, _ = router(x, torch.zeros(6))
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = router(x, torch.zeros(6))
    assert torch.equal(exact.score_NE, cast.score_NE)
