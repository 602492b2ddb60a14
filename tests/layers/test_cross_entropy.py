import pytest
import torch
from helpers import relative_error
from torch.nn import functional

from mythos.layers.cross_entropy import linear_cross_entropy, project
from mythos.types import IGNORED


@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("chunk_tokens", [1, 7, 64])
def test_chunks_do_not_change_the_result(soft_cap: float | None, chunk_tokens: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(23, 8), torch.randn(31, 8)
    target = torch.randint(31, (23,))
    target[4] = IGNORED
    weigh_nll, weigh_lse = torch.randn(23), torch.randn(23)

    def run(forward) -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        nll, lse = forward(*leaves)
        (nll * weigh_nll + lse * weigh_lse).sum().backward()
        return [nll.detach(), lse.detach(), *(leaf.grad for leaf in leaves)]

    def naive(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = x @ weight.T
        logits = logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
        nll = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
        return nll, logits.logsumexp(-1)

    result = run(lambda x, w: linear_cross_entropy(x, w, target, soft_cap, chunk_tokens))
    for ours, theirs in zip(result, run(naive), strict=True):
        assert relative_error(ours, theirs) < 1e-6
    assert result[0][4] == 0


def test_soft_cap_bounds_logits() -> None:
    logits = project(torch.full((1, 4), 100.0), torch.ones(3, 4), soft_cap=5.0)
    assert logits.abs().max() <= 5.0
    assert logits.dtype == torch.float32
