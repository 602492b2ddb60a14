"""Memory-bound kernels in Triton: each reads and writes its rows once, without atomics. See ``reference``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos.moe.kernels.reference import SwigluGradients


def combine(row_MD: Tensor, row_NK: Tensor) -> Tensor:
    """Sum the K rows of each token in fp32; a row index below 0 adds nothing."""
    (num_tokens, num_active), dim = row_NK.shape, row_MD.shape[1]
    y_ND = row_MD.new_empty(num_tokens, dim)
    block = min(triton.next_power_of_2(dim), 2048)
    _combine_kernel[num_tokens, triton.cdiv(dim, block)](
        row_MD, row_NK, y_ND, DIM=dim, NUM_ACTIVE=num_active, BLOCK=block, num_warps=max(1, block // 256)
    )
    return y_ND


def swiglu_backward(
    gate_value_MG: Tensor, assignment_M: Tensor | None, weight_A: Tensor | None, grad_hidden_MF: Tensor
) -> SwigluGradients:
    """Compute gradients of SwiGLU with the routing weight, and its output."""
    num_rows, hidden_dim = grad_hidden_MF.shape
    grads = SwigluGradients(
        torch.empty_like(gate_value_MG),
        torch.empty_like(grad_hidden_MF),
        None if weight_A is None else torch.zeros_like(weight_A),  # assignments of other ranks have no row
    )
    block = min(triton.next_power_of_2(hidden_dim), 1024)
    rows = 2048 // block
    _swiglu_backward_kernel[(triton.cdiv(num_rows, rows),)](
        gate_value_MG,
        assignment_M,
        weight_A,
        grad_hidden_MF,
        *grads,
        num_rows,
        HIDDEN_DIM=hidden_dim,
        WEIGHTED=weight_A is not None,
        ROWS=rows,
        BLOCK=block,
        num_warps=4,
    )
    return grads


@triton.jit
def _combine_kernel(
    row_pointer, index_pointer, y_pointer, DIM: tl.constexpr, NUM_ACTIVE: tl.constexpr, BLOCK: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < DIM
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for slot in tl.static_range(NUM_ACTIVE):
        row = tl.load(index_pointer + token * NUM_ACTIVE + slot).to(tl.int64)
        total += tl.load(row_pointer + row * DIM + column, mask=inside & (row >= 0), other=0.0).to(tl.float32)
    tl.store(y_pointer + token * DIM + column, total.to(y_pointer.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward_kernel(
    gate_value_pointer,
    assignment_pointer,
    weight_pointer,
    grad_hidden_pointer,
    grad_gate_value_pointer,
    hidden_pointer,
    grad_weight_pointer,
    num_rows,
    HIDDEN_DIM: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    weight = tl.full([ROWS, 1], 1.0, tl.float32)
    if WEIGHTED:
        assignment = tl.load(assignment_pointer + row, mask=row < num_rows, other=0)
        weight = tl.load(weight_pointer + assignment, mask=row < num_rows, other=0.0)[:, None]
    kind = hidden_pointer.dtype.element_ty
    grad_weight = tl.zeros([ROWS], dtype=tl.float32)
    for start in tl.static_range(0, HIDDEN_DIM, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = (row < num_rows)[:, None] & (column < HIDDEN_DIM)[None, :]
        narrow = row.to(tl.int64)[:, None] * HIDDEN_DIM + column[None, :]
        wide = row.to(tl.int64)[:, None] * (2 * HIDDEN_DIM) + column[None, :]
        gate = tl.load(gate_value_pointer + wide, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(gate_value_pointer + wide + HIDDEN_DIM, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_hidden_pointer + narrow, mask=inside, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(gate)
        activation = gate * sigmoid
        grad_weight += tl.sum(grad * activation * value, axis=1)
        grad = grad * weight
        grad_gate = grad * value * sigmoid * (1 + gate * (1 - sigmoid))
        tl.store(hidden_pointer + narrow, (weight * activation * value).to(kind), mask=inside)
        tl.store(grad_gate_value_pointer + wide, grad_gate.to(kind), mask=inside)
        tl.store(grad_gate_value_pointer + wide + HIDDEN_DIM, (grad * activation).to(kind), mask=inside)
    if WEIGHTED:
        tl.store(grad_weight_pointer + assignment, grad_weight, mask=row < num_rows)
