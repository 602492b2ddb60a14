"""Compare quack's products in the mixture with the reference implementation, on a Hopper GPU."""

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
    """Convert ``[..., 2F]`` with gate and value in halves to interleaved gate and value."""
    return torch.stack(halves.chunk(2, dim=-1), dim=-1).flatten(-2)


class Problem:
    """Random tokens, routing and weights; the last expert is empty, and the first can be remote."""

    def __init__(self, num_tokens: int, num_active: int, dim: int, hidden_dim: int, is_remote: bool) -> None:
        generator = torch.Generator().manual_seed(num_tokens)
        num_experts = num_active + 3
        score_NE = torch.rand(num_tokens, num_experts - 1, generator=generator)
        expert_indices_NK = score_NE.topk(num_active).indices.cuda() - int(is_remote)
        local = expert_indices_NK[expert_indices_NK >= 0]
        end_E = torch.bincount(local, minlength=num_experts).cumsum(0).to(torch.int32)
        self.order = fused.sort_local_assignments(expert_indices_NK, end_E)
        self.num_rows = local.numel()

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to("cuda", torch.bfloat16)

        self.x, self.grad = normal(num_tokens, dim), normal(num_tokens, dim)
        w1, w3 = (normal(num_experts, hidden_dim, dim) * dim**-0.5 for _ in range(2))
        self.weights = fused.Weights(w1, normal(num_experts, dim, hidden_dim) * hidden_dim**-0.5, w3)
        self.weight = torch.rand(expert_indices_NK.numel(), generator=generator).cuda()


@pytest.mark.parametrize("is_remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("gathered", [True, False], ids=["tokens", "rows"])
@pytest.mark.parametrize(
    ("num_tokens", "num_active", "dim", "hidden_dim"),
    [(1, 1, 64, 64), (37, 3, 128, 192), (300, 2, 64, 64), (131, 5, 1152, 520), (1000, 4, 2048, 1024)],
)
def test_kernels_equal_the_reference(
    num_tokens: int, num_active: int, dim: int, hidden_dim: int, gathered: bool, is_remote: bool
) -> None:
    from mythos.moe.kernels import cute

    problem = Problem(num_tokens, num_active, dim, hidden_dim, is_remote)
    (row_index, token, assignment, end), x, grad, weight = problem.order, problem.x, problem.grad, problem.weight
    if not gathered:
        x, grad = x[token.long()], grad[token.long()]
        row_index, token, assignment, weight = None, None, None, None
    halves = fused.copy_weights(problem.weights, torch.bfloat16)
    interleaved_copies = fused.copy_weights(problem.weights, torch.bfloat16, interleaved=True)
    local = slice(problem.num_rows)  # rows of remote assignments are undefined

    def check(result: Tensor, expected: Tensor) -> None:
        assert result.shape == expected.shape
        assert result.dtype == expected.dtype
        if expected.numel():
            assert relative_error(result, expected) < TOLERANCE

    hidden, gate_value = reference.gate_value(x, token, assignment, weight, end, halves.w13, True)
    for save_products in (True, False):
        result, saved = cute.gate_value(x, token, assignment, weight, end, interleaved_copies.w13, save_products)
        check(result[local], hidden[local])
        check(saved[local], interleaved(gate_value)[local] if save_products else saved.new_empty(0, 2 * hidden_dim))
    check(cute.down(hidden, end, interleaved_copies.w2_EDF)[local], reference.down(hidden, end, halves.w2_EDF)[local])

    rows = (grad, row_index, token, assignment, weight, end)
    expected = reference.hidden_backward(*rows, halves.w2_EDF, gate_value)
    result = cute.hidden_backward(*rows, interleaved_copies.w2_EDF, interleaved(gate_value))
    check(result.gate_value_MG[local], interleaved(expected.gate_value_MG)[local])
    check(result.hidden_MF[local], expected.hidden_MF[local])
    if gathered:
        is_local_A = row_index.flatten() >= 0
        check(result.weight_A[is_local_A], expected.weight_A[is_local_A])
        assert not result.weight_A[~is_local_A].any()
    row = reference.gate_value_backward(expected.gate_value_MG, end, halves.w13)
    check(cute.gate_value_backward(result.gate_value_MG, end, interleaved_copies.w13)[local], row[local])

    for adds in (False, True):
        accumulators = [torch.full_like(problem.weights.w1_EFD, 2.0, dtype=torch.float32) for _ in range(4)]
        reference.weight_gradient_w13(x, token, expected.gate_value_MG, end, (accumulators[0], accumulators[1]), adds)
        cute.weight_gradient_w13(x, token, result.gate_value_MG, end, (accumulators[2], accumulators[3]), adds)
        check(accumulators[2], accumulators[0])
        check(accumulators[3], accumulators[1])


def test_kernels_accept_no_rows() -> None:
    from mythos.moe.kernels import cute

    problem = Problem(9, 2, 64, 128, False)
    end, copies = torch.zeros_like(problem.order.end_E), fused.copy_weights(problem.weights, torch.bfloat16, True)
    hidden, saved = cute.gate_value(problem.x[:0], None, None, None, end, copies.w13, True)
    assert hidden.shape == (0, 128)
    assert saved.shape == (0, 256)
    grads = cute.hidden_backward(problem.x[:0], None, None, None, None, end, copies.w2_EDF, saved)
    assert (grads.gate_value_MG.shape, grads.hidden_MF.shape, grads.weight_A) == ((0, 256), (0, 128), None)
    assert cute.down(hidden, end, copies.w2_EDF).shape == (0, 64)
    assert cute.gate_value_backward(saved, end, copies.w13).shape == (0, 64)


def test_matrices_may_be_unaligned() -> None:
    from mythos.moe.kernels import cute

    problem = Problem(9, 2, 64, 128, False)
    w2, end, hidden = problem.weights.w2_EDF, problem.order.end_E, problem.x.new_ones(18, 128)
    unaligned = torch.cat((w2.new_zeros(1), w2.flatten()))[1:].view_as(w2)
    assert unaligned.data_ptr() % 16
    assert torch.equal(cute.down(hidden, end, unaligned), cute.down(hidden, end, w2))


def test_experts_whose_rows_vary_use_triton() -> None:
    from mythos.moe.experts import Experts

    experts = Experts(3, 64, 64).cuda()
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    assert experts.fused_weights(torch.bfloat16)[1].w13.shape == (3, 128, 64)
    experts.rows_vary = True
    assert experts.fused_weights(torch.bfloat16)[1].w13.shape == (2, 3, 64, 64)
