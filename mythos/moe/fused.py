"""The experts as one operation that saves little for its backward.

It saves the tokens, the routing and the two products of SwiGLU: 4F bytes for each row in bf16. The products gather
their input rows of D features from the tokens, so that these rows are never written to memory. The routing weight
multiplies the hidden rows of F features before the last product; its gradient is a by-product of the backward of SwiGLU
(SonicMoE, arXiv 2512.14080).
"""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mythos.layers.kernels import HAS_TRITON, supports_gated
from mythos.layers.shared import GradientAccumulators
from mythos.moe.kernels import WIDTH, reference


class Weights(NamedTuple):
    """Stacked matrices of the experts, in one dtype."""

    w1_EFD: Tensor
    w2_EDF: Tensor
    w3_EFD: Tensor


class WeightCopies(NamedTuple):
    """Weight copies in the dtype of the products and the layout of the kernels; without a gradient of their own."""

    w13: Tensor
    """w1 and w3, ``[2, E, F, D]``; or ``[E, 2F, D]`` with interleaved rows, for ``kernels.cute``."""
    w2_EDF: Tensor


class Order(NamedTuple):
    """Token-expert assignments sorted by expert; ``kernels.reference`` defines assignments and rows."""

    row_NK: Tensor
    """int32: row of an assignment; -1 if its expert is on another rank."""
    token_M: Tensor
    """int32: token of a row."""
    assignment_M: Tensor
    """int32: assignment of a row."""
    end_E: Tensor
    """int32: end of each expert's rows."""

    def first_rows(self, num_rows: int) -> "Order":
        """Drop the rows after the first ``num_rows``, to which no assignment of ``row_NK`` may refer."""
        return self._replace(token_M=self.token_M[:num_rows], assignment_M=self.assignment_M[:num_rows])


def is_available(x: Tensor, dtype: torch.dtype, dim: int, hidden_dim: int) -> bool:
    """Whether the kernels support these: bf16 on a Hopper GPU or later, both widths multiples of 64."""
    return (
        x.is_cuda
        and HAS_TRITON
        and dtype == torch.bfloat16
        and dim % WIDTH == 0
        and hidden_dim % WIDTH == 0
        and torch.cuda.get_device_capability(x.device) >= (9, 0)
    )


def uses_interleaved_rows(weights: Weights, dtype: torch.dtype) -> bool:
    """Whether ``kernels.cute`` runs, which needs copies with interleaved rows of w1 and w3."""
    return supports_gated(weights.w1_EFD, dtype, *weights.w1_EFD.shape[1:])


def sort_assignments(expert_indices_NK: Tensor, counts_E: Tensor) -> Order:
    """Sort assignments by expert, those of one expert in the order of their tokens."""
    row_A, assignment_M = _sort(expert_indices_NK.flatten())
    end_E = counts_E.cumsum(0).to(torch.int32)
    return Order(row_A.view(expert_indices_NK.shape), assignment_M // expert_indices_NK.shape[1], assignment_M, end_E)


def sort_local_assignments(expert_indices_NK: Tensor, end_E: Tensor) -> Order:
    """Sort assignments where only some experts are on this rank; rows of experts on other ranks come last.

    Args:
        expert_indices_NK: indices among this rank's experts; any other value means an expert on another rank.
        end_E: int32, end of the rows of each expert on this rank.
    """
    num_experts = end_E.shape[0]
    expert_A = expert_indices_NK.flatten()
    is_remote_A = (expert_A < 0) | (expert_A >= num_experts)
    row_A, assignment_M = _sort(expert_A.masked_fill(is_remote_A, num_experts))
    row_A.masked_fill_(is_remote_A, -1)
    return Order(row_A.view(expert_indices_NK.shape), assignment_M // expert_indices_NK.shape[1], assignment_M, end_E)


def _sort(expert_A: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row of each assignment and the assignment of each row, int32; the sort is stable."""
    assignment_M = expert_A.to(torch.int16).argsort(stable=True)  # a radix sort; fewer bits need fewer iterations
    row_M = torch.arange(assignment_M.shape[0], dtype=torch.int32, device=assignment_M.device)
    return torch.empty_like(row_M).scatter_(0, assignment_M, row_M), assignment_M.int()


def copy_weights(weights: Weights, dtype: torch.dtype, interleaved: bool = False) -> WeightCopies:
    """Copy weights for the kernels in ``dtype``; w2 is not copied if it has that dtype already.

    Args:
        interleaved: interleave the rows of w1 and w3 in ``w13``; see ``uses_interleaved_rows``.
    """
    w1_EFD, w2_EDF, w3_EFD = (weight.detach() for weight in weights)
    (num_experts, hidden_dim, dim), device = w1_EFD.shape, w1_EFD.device
    if interleaved:
        w13 = torch.empty(num_experts, 2 * hidden_dim, dim, dtype=dtype, device=device)
        halves = w13[:, 0::2], w13[:, 1::2]
    else:
        w13 = torch.empty(2, num_experts, hidden_dim, dim, dtype=dtype, device=device)
        halves = w13[0], w13[1]
    for half, weight in zip(halves, (w1_EFD, w3_EFD), strict=True):
        half.copy_(weight)  # casts and writes once, where stacking casts would write twice
    return WeightCopies(w13, w2_EDF.to(dtype))


def from_tokens(
    x_ND: Tensor, weight_NK: Tensor, order: Order, weights: Weights | GradientAccumulators, copies: WeightCopies
) -> Tensor:
    """Compute y_n = sum_k weight_nk expert_nk(x_n).

    Args:
        x_ND: tokens in the dtype of ``copies``.
        weight_NK: routing weights, fp32.
        weights: parameters, which receive gradients in their own dtype; or their gradient accumulators.
        copies: result of ``copy_weights``; calls with the same weights may share it.
    """
    save_products = torch.is_grad_enabled()
    return _experts(
        x_ND.contiguous(), weight_NK.flatten(), *order, *_gradient_targets(weights), *copies, save_products
    )[0]


def from_rows(row_MD: Tensor, end_E: Tensor, weights: Weights | GradientAccumulators, copies: WeightCopies) -> Tensor:
    """Apply experts to rows that are sorted by expert, without routing weights; the rows are saved for the backward."""
    save_products = torch.is_grad_enabled()
    return _experts(
        row_MD.contiguous(), None, None, None, None, end_E, *_gradient_targets(weights), *copies, save_products
    )[0]


def _gradient_targets(weights: Weights | GradientAccumulators) -> tuple[Tensor | None, ...]:
    """Return three tensors shaped like the weights, and the dependency token of accumulators or None for parameters."""
    return (
        (*weights.accumulators, weights.dependency) if isinstance(weights, GradientAccumulators) else (*weights, None)
    )


@torch.library.custom_op("mythos::experts", mutates_args=())
def _experts(
    x_ND: Tensor,
    weight_A: Tensor | None,
    row_NK: Tensor | None,
    token_M: Tensor | None,
    assignment_M: Tensor | None,
    end_E: Tensor,
    w1_EFD: Tensor,
    w2_EDF: Tensor,
    w3_EFD: Tensor,
    dependency: Tensor | None,
    copy13: Tensor,
    copy2_EDF: Tensor,
    save_products: bool,
) -> tuple[Tensor, Tensor]:
    """Return outputs of the tokens, or of the rows if ``row_NK`` is None, and both products if ``save_products``.

    Gradients go to w1, w2 and w3, which are ``GradientAccumulators`` if there is a dependency token; the products read
    only the weight copies.
    """
    kernels = _kernels(x_ND, copy13)
    hidden_MF, gate_value_MG = kernels.gate_value(x_ND, token_M, assignment_M, weight_A, end_E, copy13, save_products)
    row_MD = kernels.down(hidden_MF, end_E, copy2_EDF)
    return row_MD if row_NK is None else kernels.combine(row_MD, row_NK), gate_value_MG


@torch.library.custom_op("mythos::experts_backward", mutates_args=())
def _experts_backward(
    grad_ND: Tensor,
    gate_value_MG: Tensor,
    x_ND: Tensor,
    weight_A: Tensor | None,
    row_NK: Tensor | None,
    token_M: Tensor | None,
    assignment_M: Tensor | None,
    end_E: Tensor,
    accumulators: list[Tensor],
    copy13: Tensor,
    copy2_EDF: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return gradients of the input, the routing weights, w1, w2 and w3.

    With ``accumulators`` the last three are empty, and are added to these instead; ``layers.shared`` explains why the
    mutation is not declared.
    """
    kernels = _kernels(grad_ND, copy13)
    grads = kernels.hidden_backward(grad_ND, row_NK, token_M, assignment_M, weight_A, end_E, copy2_EDF, gate_value_MG)
    if accumulators:
        grad_w1, grad_w2, grad_w3 = (accumulator.data for accumulator in accumulators)
    else:
        grad_w1, grad_w2, grad_w3 = _empty_gradients(copy2_EDF, dtype)
    adds = len(accumulators) > 0
    kernels.weight_gradient_w2(grad_ND, token_M, grads.hidden_MF, end_E, grad_w2, adds)
    kernels.weight_gradient_w13(x_ND, token_M, grads.gate_value_MG, end_E, (grad_w1, grad_w3), adds)
    grad_row_MD = kernels.gate_value_backward(grads.gate_value_MG, end_E, copy13)
    grad_x_ND = grad_row_MD if row_NK is None else kernels.combine(grad_row_MD, row_NK)
    grad_weight_A = end_E.new_empty(0, dtype=torch.float32) if grads.weight_A is None else grads.weight_A
    if adds:
        grad_w1, grad_w2, grad_w3 = (end_E.new_empty(0, dtype=dtype) for _ in accumulators)
    return grad_x_ND, grad_weight_A, grad_w1, grad_w2, grad_w3


def _empty_gradients(copy2_EDF: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Allocate gradients of w1, w2 and w3."""
    likes = (copy2_EDF.mT, copy2_EDF, copy2_EDF.mT)
    return tuple(torch.empty(like.shape, dtype=dtype, device=like.device) for like in likes)


def _kernels(x: Tensor, copy13: Tensor) -> ModuleType:
    """Return the kernels of quack or Triton if they can run, else the reference implementation."""
    if copy13.dim() == 3:  # interleaved rows
        from mythos.moe.kernels import cute

        return cute
    _, _, hidden_dim, dim = copy13.shape
    if not is_available(x, copy13.dtype, dim, hidden_dim):
        return reference
    from mythos.moe.kernels import hopper

    return hopper


@_experts.register_fake
def _(x, weight, row, token, assignment, end, w1, w2, w3, dependency, copy13, copy2, save_products):  # type: ignore[no-untyped-def]
    num_rows = x.shape[0] if token is None else token.shape[0]
    return torch.empty_like(x), x.new_empty(num_rows if save_products else 0, 2 * w1.shape[1])


@_experts_backward.register_fake
def _(grad, gate_value, x, weight, row, token, assignment, end, accumulators, copy13, copy2, dtype):  # type: ignore[no-untyped-def]
    grad_weight = end.new_empty(0, dtype=torch.float32) if weight is None else torch.empty_like(weight)
    if accumulators:
        return torch.empty_like(x), grad_weight, *(end.new_empty(0, dtype=dtype) for _ in accumulators)
    return torch.empty_like(x), grad_weight, *_empty_gradients(copy2, dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, row, token, assignment, end, w1, w2, w3, dependency, copy13, copy2, _ = inputs
    accumulators = () if dependency is None else (w1, w2, w3)
    ctx.save_for_backward(output[1], x, weight, row, token, assignment, end, copy13, copy2, *accumulators)
    ctx.dtype = w1.dtype
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # else autograd fills a gradient of the products with zeros


def _backward(ctx: Any, grad_ND: Tensor, _: None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    *activations, copy13, copy2 = saved[:9]
    accumulators = list(saved[9:])
    grad_ND = grad_ND.contiguous()
    grad_x, grad_weight, *grads = _experts_backward(grad_ND, *activations, accumulators, copy13, copy2, ctx.dtype)
    if activations[2] is None:
        grad_weight = None
    grads = [None, None, None, grads[0]] if accumulators else [*grads, None]
    return grad_x, grad_weight, None, None, None, None, *grads, None, None, None


_experts.register_autograd(_backward, setup_context=_setup_context)
