"""quack's products within the mixture against their PyTorch twins, on a Hopper GPU."""

import pytest
import torch
from helpers import relative_error
from torch import Tensor

from mythos.layers.kernels import HAS_QUACK
from mythos.moe import fused
from mythos.moe.kernels import reference

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HAS_QUACK, reason="quack-kernels is not installed")]
TOLERANCE = 6e-3  # bf16: both round their results once, and products of SwiGLU before


def interleaved(halves: Tensor) -> Tensor:
    """``[..., 2F]`` with gate and value one after the other, to one with both in turn."""
    return torch.stack(halves.chunk(2, dim=-1), dim=-1).flatten(-2)


class Problem:
    """Random tokens, routing and weights; the last expert is empty, and visits to the first are elsewhere if asked."""

    def __init__(self, num_tokens: int, num_active: int, dim: int, hidden_dim: int, elsewhere: bool) -> None:
        generator = torch.Generator().manual_seed(num_tokens)
        num_experts = num_active + 3
        chance_NE = torch.rand(num_tokens, num_experts - 1, generator=generator)
        expert_indices_NK = chance_NE.topk(num_active).indices.cuda() - int(elsewhere)
        here = expert_indices_NK[expert_indices_NK >= 0]
        end_E = torch.bincount(here, minlength=num_experts).cumsum(0).to(torch.int32)
        self.order = fused.sort_local_assignments(expert_indices_NK, end_E)
        self.num_rows = here.numel()

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to("cuda", torch.bfloat16)

        self.x, self.grad = normal(num_tokens, dim), normal(num_tokens, dim)
        w1, w3 = (normal(num_experts, hidden_dim, dim) * dim**-0.5 for _ in range(2))
        self.weights = fused.Weights(w1, normal(num_experts, dim, hidden_dim) * hidden_dim**-0.5, w3)
        self.weight = torch.rand(expert_indices_NK.numel(), generator=generator).cuda()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("gathered", [True, False], ids=["tokens", "rows"])
@pytest.mark.parametrize(
    ("num_tokens", "num_active", "dim", "hidden_dim"),
    [(1, 1, 64, 64), (37, 3, 128, 192), (300, 2, 64, 64), (131, 5, 1152, 520), (1000, 4, 2048, 1024)],
)
def test_kernels_equal_their_twins(
    num_tokens: int, num_active: int, dim: int, hidden_dim: int, gathered: bool, elsewhere: bool
) -> None:
    from mythos.moe.kernels import cute

    problem = Problem(num_tokens, num_active, dim, hidden_dim, elsewhere)
    (place, token, visit, end), x, grad, weight = problem.order, problem.x, problem.grad, problem.weight
    if not gathered:
        x, grad = x[token.long()], grad[token.long()]
        place, token, visit, weight = None, None, None, None
    halves = fused.copy_weights(problem.weights, torch.bfloat16)
    turns = fused.copy_weights(problem.weights, torch.bfloat16, interleaved=True)
    here = slice(problem.num_rows)  # what rows of visits to experts elsewhere hold is undefined

    def check(found: Tensor, expected: Tensor) -> None:
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        if expected.numel():
            assert relative_error(found, expected) < TOLERANCE

    hidden, gate_value = reference.gate_value(x, token, visit, weight, end, halves.w13, True)
    for save_products in (True, False):
        found, kept = cute.gate_value(x, token, visit, weight, end, turns.w13, save_products)
        check(found[here], hidden[here])
        check(kept[here], interleaved(gate_value)[here] if save_products else kept.new_empty(0, 2 * hidden_dim))
    check(cute.down(hidden, end, turns.w2_EDF)[here], reference.down(hidden, end, halves.w2_EDF)[here])

    rows = (grad, place, token, visit, weight, end)
    expected = reference.hidden_backward(*rows, halves.w2_EDF, gate_value)
    found = cute.hidden_backward(*rows, turns.w2_EDF, interleaved(gate_value))
    check(found.gate_value_MG[here], interleaved(expected.gate_value_MG)[here])
    check(found.hidden_MF[here], expected.hidden_MF[here])
    if gathered:
        is_here_A = place.flatten() >= 0
        check(found.weight_A[is_here_A], expected.weight_A[is_here_A])
        assert not found.weight_A[~is_here_A].any()
    row = reference.gate_value_backward(expected.gate_value_MG, end, halves.w13)
    check(cute.gate_value_backward(found.gate_value_MG, end, turns.w13)[here], row[here])

    for adds in (False, True):
        totals = [torch.full_like(problem.weights.w1_EFD, 2.0, dtype=torch.float32) for _ in range(4)]
        reference.weight_gradient_w13(x, token, expected.gate_value_MG, end, (totals[0], totals[1]), adds)
        cute.weight_gradient_w13(x, token, found.gate_value_MG, end, (totals[2], totals[3]), adds)
        check(totals[2], totals[0])
        check(totals[3], totals[1])


def test_kernels_take_no_rows() -> None:
    from mythos.moe.kernels import cute

    problem = Problem(9, 2, 64, 128, False)
    end, copies = torch.zeros_like(problem.order.end_E), fused.copy_weights(problem.weights, torch.bfloat16, True)
    hidden, kept = cute.gate_value(problem.x[:0], None, None, None, end, copies.w13, True)
    assert hidden.shape == (0, 128)
    assert kept.shape == (0, 256)
    grads = cute.hidden_backward(problem.x[:0], None, None, None, None, end, copies.w2_EDF, kept)
    assert (grads.gate_value_MG.shape, grads.hidden_MF.shape, grads.weight_A) == ((0, 256), (0, 128), None)
    assert cute.down(hidden, end, copies.w2_EDF).shape == (0, 64)
    assert cute.gate_value_backward(kept, end, copies.w13).shape == (0, 64)


def test_matrices_need_not_start_at_16_bytes() -> None:
    from mythos.moe.kernels import cute

    problem = Problem(9, 2, 64, 128, False)
    w2, end, hidden = problem.weights.w2_EDF, problem.order.end_E, problem.x.new_ones(18, 128)
    unaligned = torch.cat((w2.new_zeros(1), w2.flatten()))[1:].view_as(w2)
    assert unaligned.data_ptr() % 16
    assert torch.equal(cute.down(hidden, end, unaligned), cute.down(hidden, end, w2))


def test_experts_whose_rows_vary_take_others() -> None:
    from mythos.moe.experts import Experts

    experts = Experts(3, 64, 64).cuda()
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    assert experts.fused_weights(torch.bfloat16)[1].w13.shape == (3, 128, 64)
    experts.rows_vary = True
    assert experts.fused_weights(torch.bfloat16)[1].w13.shape == (2, 3, 64, 64)
