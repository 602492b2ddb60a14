"""Normalisation and rotation of heads in one kernel, and its gradient, in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos.layers.kernels import num_processors

_ROWS = 16
"""Heads in a tile."""
_PER_PROCESSOR = 8
"""Programs of the backward for each multiprocessor; each sums the weight's gradient over its tiles."""


def norm_and_rotate(x_BSHP: Tensor, weight_P: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Compute ``heads.norm_and_rotate``; the arguments are contiguous."""
    y_BSHP = torch.empty_like(x_BSHP)
    num_heads, width = x_BSHP.shape[2:]
    num_rows = x_BSHP.numel() // width
    _forward_kernel[(triton.cdiv(num_rows, _ROWS),)](
        x_BSHP, weight_P, cos, sin, y_BSHP, num_rows, eps, NUM_HEADS=num_heads, HALF=width // 2, ROWS=_ROWS, num_warps=4
    )
    return y_BSHP


def norm_and_rotate_backward(
    grad_BSHP: Tensor, x_BSHP: Tensor, weight_P: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return gradients of the heads, and of the weight in fp32."""
    grad_x_BSHP = torch.empty_like(x_BSHP)
    num_heads, width = x_BSHP.shape[2:]
    num_rows = x_BSHP.numel() // width
    num_programs = min(triton.cdiv(num_rows, _ROWS), _PER_PROCESSOR * num_processors())
    partial_RP = torch.empty(num_programs, width, dtype=torch.float32, device=x_BSHP.device)
    _backward_kernel[(num_programs,)](
        grad_BSHP,
        x_BSHP,
        weight_P,
        cos,
        sin,
        grad_x_BSHP,
        partial_RP,
        num_rows,
        eps,
        NUM_HEADS=num_heads,
        HALF=width // 2,
        ROWS=_ROWS,
        num_warps=4,
    )
    return grad_x_BSHP, partial_RP.sum(0)


@triton.jit
def _tile_offsets(tile, num_rows, NUM_HEADS: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr):
    """Offsets of the first half of each head of a tile and of its angles, and the mask of heads that exist."""
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, HALF)[None, :]
    head = row.to(tl.int64)[:, None] * (2 * HALF) + column
    angle = (row // NUM_HEADS).to(tl.int64)[:, None] * HALF + column
    return head, angle, (row < num_rows)[:, None]


@triton.jit
def _forward_kernel(
    x, weight, cos, sin, y, num_rows, eps, NUM_HEADS: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr
):
    head, angle, inside = _tile_offsets(tl.program_id(0), num_rows, NUM_HEADS, HALF, ROWS)
    column = tl.arange(0, HALF)[None, :]
    first = tl.load(x + head, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + head + HALF, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt((tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)) / (2 * HALF) + eps)[:, None]
    first = first * scale * tl.load(weight + column).to(tl.float32)
    second = second * scale * tl.load(weight + column + HALF).to(tl.float32)
    c = tl.load(cos + angle, mask=inside, other=0.0)
    s = tl.load(sin + angle, mask=inside, other=0.0)
    kind = y.dtype.element_ty
    tl.store(y + head, (first * c - second * s).to(kind), mask=inside)
    tl.store(y + head + HALF, (second * c + first * s).to(kind), mask=inside)


@triton.jit
def _backward_kernel(
    grad,
    x,
    weight,
    cos,
    sin,
    grad_x,
    partial,
    num_rows,
    eps,
    NUM_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
):
    column = tl.arange(0, HALF)[None, :]
    weight_1 = tl.load(weight + column).to(tl.float32)
    weight_2 = tl.load(weight + column + HALF).to(tl.float32)
    grad_weight_1 = tl.zeros([ROWS, HALF], tl.float32)
    grad_weight_2 = tl.zeros([ROWS, HALF], tl.float32)
    kind = grad_x.dtype.element_ty
    for tile in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        head, angle, inside = _tile_offsets(tile, num_rows, NUM_HEADS, HALF, ROWS)
        c = tl.load(cos + angle, mask=inside, other=0.0)
        s = tl.load(sin + angle, mask=inside, other=0.0)
        grad_1 = tl.load(grad + head, mask=inside, other=0.0).to(tl.float32)
        grad_2 = tl.load(grad + head + HALF, mask=inside, other=0.0).to(tl.float32)
        rotated_1 = grad_1 * c + grad_2 * s
        rotated_2 = grad_2 * c - grad_1 * s
        x_1 = tl.load(x + head, mask=inside, other=0.0).to(tl.float32)
        x_2 = tl.load(x + head + HALF, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt((tl.sum(x_1 * x_1, axis=1) + tl.sum(x_2 * x_2, axis=1)) / (2 * HALF) + eps)[:, None]
        x_1 *= scale
        x_2 *= scale
        grad_weight_1 += rotated_1 * x_1
        grad_weight_2 += rotated_2 * x_2
        rotated_1 *= weight_1
        rotated_2 *= weight_2
        along = (tl.sum(rotated_1 * x_1, axis=1) + tl.sum(rotated_2 * x_2, axis=1))[:, None] / (2 * HALF)
        tl.store(grad_x + head, (scale * (rotated_1 - x_1 * along)).to(kind), mask=inside)
        tl.store(grad_x + head + HALF, (scale * (rotated_2 - x_2 * along)).to(kind), mask=inside)
    pointers = partial + tl.program_id(0) * (2 * HALF) + tl.arange(0, HALF)
    tl.store(pointers, tl.sum(grad_weight_1, axis=0))
    tl.store(pointers + HALF, tl.sum(grad_weight_2, axis=0))
