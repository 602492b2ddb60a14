"""Dispatch of tokens to experts: grouped paths without host synchronisation, and a naive reference implementation."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from mythos.layers.precision import compute_dtype
from mythos.moe import fused
from mythos.moe.experts import Experts
from mythos.moe.router import Routing


def grouped(x_ND: Tensor, routing: Routing, counts_E: Tensor, experts: Experts) -> Tensor:
    """Sort the N * K assignments by expert and run grouped products, with fused kernels if available."""
    dtype = compute_dtype(x_ND)
    if not experts.is_fused(x_ND, dtype):
        return plain(x_ND, routing, counts_E, experts)
    order = fused.sort_assignments(routing.expert_indices_NK, counts_E)
    return fused.from_tokens(x_ND.to(dtype), routing.weight_NK, order, *experts.fused_weights(dtype))


def plain(x_ND: Tensor, routing: Routing, counts_E: Tensor, experts: Experts) -> Tensor:
    """Sort the assignments by expert, run the experts on contiguous rows, and return each token's weighted sum."""
    num_tokens, num_active = routing.expert_indices_NK.shape
    order_M = routing.expert_indices_NK.flatten().argsort(stable=True)
    inverse_M = torch.empty_like(order_M)
    inverse_M[order_M] = torch.arange(order_M.shape[0], device=order_M.device)
    row_MD = _Scatter.apply(x_ND, order_M, inverse_M, num_active)
    row_MD = experts.plain(row_MD, counts_E.cumsum(0).to(torch.int32))
    assignment_NKD = _Reorder.apply(row_MD, inverse_M, order_M).view(num_tokens, num_active, -1)
    return torch.einsum("nkd,nk->nd", assignment_NKD, routing.weight_NK.to(assignment_NKD.dtype))


def naive(x_ND: Tensor, routing: Routing, counts_E: Tensor, experts: Experts) -> Tensor:
    """Run one expert after the other on the tokens that are routed to it."""
    del counts_E
    y_ND = torch.zeros_like(x_ND)
    for expert in range(experts.w1.shape[0]):
        token, slot = (routing.expert_indices_NK == expert).nonzero(as_tuple=True)
        assignment = experts.apply_one(expert, x_ND[token]) * routing.weight_NK[token, slot, None]
        y_ND = y_ND.index_add(0, token, assignment.to(y_ND.dtype))
    return y_ND


class _Scatter(Function):
    """row_m = x_{order_m // K}; the gradient gathers each token's K rows, so that neither direction needs atomics."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, order_M: Tensor, inverse_M: Tensor, num_active: int) -> Tensor:
        ctx.save_for_backward(inverse_M)
        ctx.num_active = num_active
        return x_ND.index_select(0, order_M // num_active)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse_M,) = ctx.saved_tensors
        assignments_MD = grad_MD.index_select(0, inverse_M)
        return assignments_MD.unflatten(0, (-1, ctx.num_active)).sum(1), None, None, None


class _Reorder(Function):
    """y_m = row_{index_m} for a permutation; the gradient applies the inverse permutation."""

    @staticmethod
    def forward(ctx: Any, row_MD: Tensor, index_M: Tensor, inverse_M: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_M)
        return row_MD.index_select(0, index_M)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None, None]:
        (inverse_M,) = ctx.saved_tensors
        return grad_MD.index_select(0, inverse_M), None, None
