"""Compare each kernel with the reference implementation: in bf16 on a GPU, else in fp32 with Triton's interpreter."""

import os

import pytest
import torch
from helpers import relative_error

from mythos.moe import fused
from mythos.moe.kernels import reference

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton")
from mythos.moe.kernels import hopper  # noqa: E402

DEVICE, DTYPE = ("cuda", torch.bfloat16) if ON_GPU else ("cpu", torch.float32)
TOLERANCE = 6e-3 if ON_GPU else 1e-6  # bf16: both round their results once, and products of SwiGLU before


class Problem:
    """Random tokens, routing and weights; the last expert is empty, and with ``one_expert`` all but the second."""

    def __init__(self, num_tokens: int, num_active: int, dim: int, hidden_dim: int, one_expert: bool = False) -> None:
        generator = torch.Generator().manual_seed(num_tokens)
        num_experts = num_active + 3
        score_NE = torch.rand(num_tokens, num_experts - 1, generator=generator)
        expert_indices_NK = torch.full((num_tokens, 1), 1) if one_expert else score_NE.topk(num_active).indices
        counts_E = torch.bincount(expert_indices_NK.flatten(), minlength=num_experts)
        self.order = fused.sort_assignments(expert_indices_NK.to(DEVICE), counts_E.to(DEVICE))

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(DEVICE, DTYPE)

        self.x, self.grad = normal(num_tokens, dim), normal(num_tokens, dim)
        self.w13 = normal(2, num_experts, hidden_dim, dim) * dim**-0.5
        self.w2 = normal(num_experts, dim, hidden_dim) * hidden_dim**-0.5
        self.weight = torch.rand(expert_indices_NK.numel(), generator=generator).to(DEVICE)

    def all_results(self, kernels: object, gathered: bool) -> dict[str, torch.Tensor]:
        """Return the results of every kernel, with the inputs that ``reference`` computes."""
        row_index, token, assignment, end = self.order
        x, grad, weight = self.x, self.grad, self.weight
        if not gathered:
            x, grad, token, assignment, weight = x[token.long()], grad[token.long()], None, None, None
        hidden, gate_value = reference.gate_value(x, token, assignment, weight, end, self.w13, True)
        grad_hidden = reference.down_backward(grad, token, end, self.w2)
        grads = reference.swiglu_backward(gate_value, assignment, weight, grad_hidden)
        row = reference.down(hidden, end, self.w2)
        results = {
            "gate_value": kernels.gate_value(x, token, assignment, weight, end, self.w13, True),
            "without products": kernels.gate_value(x, token, assignment, weight, end, self.w13, False),
            "down": kernels.down(hidden, end, self.w2),
            "down_backward": kernels.down_backward(grad, token, end, self.w2),
            "swiglu_backward": kernels.swiglu_backward(gate_value, assignment, weight, grad_hidden),
            "w2": self.w2_gradients(kernels, grad, token, grads.hidden_MF),
            "w13": self.w13_gradients(kernels, x, token, grads.gate_value_MG),
            "gate_value_backward": kernels.gate_value_backward(grads.gate_value_MG, end, self.w13),
            "combine": kernels.combine(row, row_index),
        }
        flat = {name: each if isinstance(each, tuple) else (each,) for name, each in results.items()}
        return {f"{name} {i}": each for name, some in flat.items() for i, each in enumerate(some) if each is not None}

    def w2_gradients(self, kernels: object, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return gradients of w2, written and added to ones."""
        accumulators = torch.full_like(self.w2, 7.0, dtype=torch.float32), torch.ones_like(self.w2, dtype=torch.float32)
        for adds, accumulator in enumerate(accumulators):
            kernels.weight_gradient_w2(*operands, self.order.end_E, accumulator, bool(adds))
        return accumulators

    def w13_gradients(self, kernels: object, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return gradients of w1 and w3, written and added to ones."""
        accumulators = [torch.full_like(self.w13[0], value, dtype=torch.float32) for value in (7.0, 7.0, 1.0, 1.0)]
        kernels.weight_gradient_w13(*operands, self.order.end_E, (accumulators[0], accumulators[1]), False)
        kernels.weight_gradient_w13(*operands, self.order.end_E, (accumulators[2], accumulators[3]), True)
        return tuple(accumulators)


@pytest.mark.parametrize("gathered", [True, False], ids=["tokens", "rows"])
@pytest.mark.parametrize(
    ("num_tokens", "num_active", "dim", "hidden_dim"),
    [(1, 1, 64, 64), (37, 3, 128, 192), (300, 2, 64, 64), (131, 5, 320, 128)],
)
def test_kernels_equal_the_reference(
    num_tokens: int, num_active: int, dim: int, hidden_dim: int, gathered: bool
) -> None:
    problem = Problem(num_tokens, num_active, dim, hidden_dim)
    ours, theirs = (problem.all_results(kernels, gathered) for kernels in (hopper, reference))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape, name
        assert ours[name].dtype == expected.dtype, name
        if expected.numel():
            assert relative_error(ours[name], expected) < TOLERANCE, name


def test_kernels_equal_the_reference_when_one_expert_receives_every_token() -> None:
    problem = Problem(201, 1, 64, 128, one_expert=True)
    assert problem.order.end_E.tolist() == [0, 201, 201, 201]
    ours, theirs = (problem.all_results(kernels, True) for kernels in (hopper, reference))
    for name, expected in theirs.items():
        if expected.numel():
            assert relative_error(ours[name], expected) < TOLERANCE, name


def test_kernels_accept_no_rows() -> None:
    problem = Problem(9, 2, 64, 128)
    end = torch.zeros_like(problem.order.end_E)
    row, wide = problem.x[:0], problem.w13.new_empty(0, 256)
    hidden, gate_value = hopper.gate_value(row, None, None, None, end, problem.w13, True)
    assert hidden.shape == (0, 128)
    assert gate_value.shape == (0, 256)
    assert hopper.down(hidden, end, problem.w2).shape == (0, 64)
    assert hopper.gate_value_backward(wide, end, problem.w13).shape == (0, 64)
    accumulators = [
        torch.full_like(like, 7.0, dtype=torch.float32) for like in (problem.w13[0], problem.w2, problem.w13[1])
    ]
    for adds in (True, False):
        hopper.weight_gradient_w2(row, None, hidden, end, accumulators[1], adds)
        hopper.weight_gradient_w13(row, None, wide, end, (accumulators[0], accumulators[2]), adds)
        for accumulator in accumulators:
            assert torch.equal(accumulator, torch.full_like(accumulator, 7.0 * adds))


def test_matrices_may_be_unaligned() -> None:
    problem = Problem(9, 2, 64, 128)
    hidden = problem.x.new_ones(18, 128)
    flat = torch.cat((problem.w2.new_zeros(1), problem.w2.flatten()))
    unaligned = flat[1:].view_as(problem.w2)
    assert unaligned.data_ptr() % 16
    end = problem.order.end_E
    assert torch.equal(hopper.down(hidden, end, unaligned), hopper.down(hidden, end, problem.w2))
