"""Grouped products in Triton for Hopper that gather token rows as they load them. See ``reference``.

A program computes tiles of one expert's rows. It finds its tiles from the ends of the experts' rows, so that the host
needs no size, for any routing. Where the sum of a tile is short, programs are persistent and load the next tile while
they store the last one. Widths are multiples of ``kernels.WIDTH``, so that the last step of a sum is never partial.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from mythos.layers.kernels import aligned, num_processors


class _Tile(NamedTuple):
    """Block sizes of a kernel, measured on an H200 (docs/performance.md)."""

    m: int
    n: int
    k: int
    num_warps: int
    num_stages: int
    per_processor: int = 0
    """Persistent programs on each multiprocessor, each of which computes many tiles; 0 starts one program a tile."""

    def options(self) -> dict[str, int]:
        names = ("BM", "BN", "BK", "num_warps", "num_stages")
        return dict(zip(names, self[:5], strict=True))


_GATE_VALUE = _Tile(128, 128, 64, 8, 4)
_DOWN = _Tile(128, 128, 64, 4, 3, 2)
_DOWN_BACKWARD = _Tile(128, 256, 64, 8, 3, 1)
_GATE_VALUE_BACKWARD = _Tile(128, 128, 64, 4, 3, 2)
_WEIGHT_GRADIENT = _Tile(128, 256, 64, 8, 4)
_WEIGHT_GRADIENT_GATHERED = _Tile(128, 256, 64, 8, 5)  # a gathered operand gets half of the buffers


def gate_value(
    x_ND: Tensor,
    token_M: Tensor | None,
    assignment_M: Tensor | None,
    weight_A: Tensor | None,
    end_E: Tensor,
    w13_2EFD: Tensor,
    save_products: bool,
) -> tuple[Tensor, Tensor]:
    """Compute gate and value, with SwiGLU and the routing weight in the epilogue."""
    num_rows = x_ND.shape[0] if token_M is None else token_M.shape[0]
    _, num_experts, hidden_dim, dim = w13_2EFD.shape
    tile = _GATE_VALUE
    hidden_MF = x_ND.new_empty(num_rows, hidden_dim)
    gate_value_MG = x_ND.new_empty(num_rows if save_products else 0, 2 * hidden_dim)
    if num_rows == 0:  # an empty tensor has no descriptor
        return hidden_MF, gate_value_MG
    _gate_value_kernel[_grid(num_rows, num_experts, hidden_dim, tile)](
        x_ND if token_M is not None else _descriptor(x_ND, [tile.m, tile.k]),
        token_M,
        assignment_M,
        weight_A,
        end_E,
        _descriptor(w13_2EFD, [tile.n, tile.k]),
        gate_value_MG,
        hidden_MF,
        DIM=dim,
        HIDDEN_DIM=hidden_dim,
        GATHER=token_M is not None,
        WEIGHTED=weight_A is not None,
        SAVE_PRODUCTS=save_products,
        NUM_EXPERTS=num_experts,
        EXPERTS_BLOCK=triton.next_power_of_2(num_experts),
        FLATTEN=tile.per_processor > 0,
        **tile.options(),
    )
    return hidden_MF, gate_value_MG


def down(hidden_MF: Tensor, end_E: Tensor, w2_EDF: Tensor) -> Tensor:
    """Multiply hidden rows by w2: ``[M, D]``."""
    return _rows_product(hidden_MF, None, end_E, w2_EDF, transposed=True, tile=_DOWN)


def down_backward(grad_ND: Tensor, token_M: Tensor | None, end_E: Tensor, w2_EDF: Tensor) -> Tensor:
    """Compute the gradient of the hidden rows: ``[M, F]``."""
    return _rows_product(grad_ND, token_M, end_E, w2_EDF, transposed=False, tile=_DOWN_BACKWARD)


def gate_value_backward(grad_MG: Tensor, end_E: Tensor, w13_2EFD: Tensor) -> Tensor:
    """Compute the gradient of the rows: ``[M, D]``."""
    return _rows_product(grad_MG, None, end_E, w13_2EFD, transposed=False, tile=_GATE_VALUE_BACKWARD)


def weight_gradient_w2(
    grad_ND: Tensor, token_M: Tensor | None, hidden_MF: Tensor, end_E: Tensor, accumulator_EDF: Tensor, adds: bool
) -> None:
    """Compute in fp32 the sum over each expert's rows of dy h^T, and write it to ``accumulator_EDF``, or add it."""
    _weight_gradient(grad_ND, token_M, hidden_MF, end_E, (accumulator_EDF,), adds)


def weight_gradient_w13(
    x_ND: Tensor,
    token_M: Tensor | None,
    grad_MG: Tensor,
    end_E: Tensor,
    accumulators: tuple[Tensor, Tensor],
    adds: bool,
    interleaved: bool = False,
) -> None:
    """Do the same for w1 and w3, ``[E, F, D]`` each; the columns of ``grad_MG`` are in halves, or interleaved."""
    _weight_gradient(x_ND, token_M, grad_MG, end_E, accumulators, adds, interleaved)


def _rows_product(a: Tensor, token_M: Tensor | None, end_E: Tensor, b: Tensor, transposed: bool, tile: _Tile) -> Tensor:
    """Multiply rows by their expert's ``b``: ``[E, P, Q]``, transposed ``[E, Q, P]``, or ``[2, E, P / 2, Q]``."""
    num_rows = a.shape[0] if token_M is None else token_M.shape[0]
    p, q = b.shape[-2:]
    block = [tile.k, tile.n]
    if transposed:
        p, q, block = q, p, [tile.n, tile.k]
    num_experts = end_E.shape[0]
    product = a.new_empty(num_rows, q)
    if num_rows == 0:
        return product
    _rows_product_kernel[_grid(num_rows, num_experts, q, tile)](
        a if token_M is not None else _descriptor(a, [tile.m, tile.k]),
        token_M,
        end_E,
        _descriptor(b, block),
        product,
        DEPTH=a.shape[1],
        P=p,
        Q=q,
        GATHER=token_M is not None,
        TRANSPOSED=transposed,
        NUM_EXPERTS=num_experts,
        EXPERTS_BLOCK=triton.next_power_of_2(num_experts),
        FLATTEN=tile.per_processor > 0,
        **tile.options(),
    )
    return product


def _weight_gradient(
    a_ND: Tensor,
    token_M: Tensor | None,
    b_MG: Tensor,
    end_E: Tensor,
    accumulators: tuple[Tensor, ...],
    adds: bool,
    interleaved: bool = False,
) -> None:
    """Compute a^T b of each expert; one accumulator is ``[E, D, F]``, two are ``[E, F, D]``, for the halves of b."""
    assert all(accumulator.is_contiguous() for accumulator in accumulators)
    num_halves = 1 if interleaved else len(accumulators)
    num_experts, p, q = end_E.shape[0], a_ND.shape[1], b_MG.shape[1] // num_halves
    tile = _WEIGHT_GRADIENT if token_M is None else _WEIGHT_GRADIENT_GATHERED
    _weight_gradient_kernel[(num_experts * triton.cdiv(p, tile.m) * triton.cdiv(q, tile.n) * num_halves,)](
        a_ND,
        token_M,
        b_MG,
        end_E,
        accumulators[0],
        accumulators[-1],
        P=p,
        Q=q,
        IS_PAIR=len(accumulators) == 2,
        INTERLEAVED=interleaved,
        ADDS=adds,
        GATHER=token_M is not None,
        **tile.options(),
    )


def _descriptor(matrices: Tensor, block: list[int]) -> TensorDescriptor:
    """Describe blocks of stacked matrices."""
    return TensorDescriptor.from_tensor(aligned(matrices).view(-1, matrices.shape[-1]), block)


def _grid(num_rows: int, num_experts: int, width: int, tile: _Tile) -> tuple[int]:
    """Return the number of persistent programs, or one for each tile; an expert's last tile may be partly empty."""
    num_tiles = (num_rows // tile.m + num_experts) * triton.cdiv(width, tile.n)
    if tile.per_processor == 0:
        return (num_tiles,)
    return (min(num_tiles, tile.per_processor * num_processors()),)


@triton.jit
def _tile_bounds(end_pointer, NUM_EXPERTS: tl.constexpr, EXPERTS_BLOCK: tl.constexpr, BM: tl.constexpr):
    """Return begin and end of each expert's rows, and the cumulative number of tiles."""
    index = tl.arange(0, EXPERTS_BLOCK)
    valid = index < NUM_EXPERTS
    end = tl.load(end_pointer + index, mask=valid, other=0)
    begin = tl.load(end_pointer + index - 1, mask=valid & (index > 0), other=0)
    return begin, end, tl.cumsum(tl.where(valid, tl.cdiv(end - begin, BM), 0))


@triton.jit
def _locate_tile(tile, begin, end, last_tile, NUM_EXPERTS: tl.constexpr, EXPERTS_BLOCK: tl.constexpr, BM: tl.constexpr):
    """Return the expert of a tile of rows, the tile's first row, and the end of the expert's rows."""
    index = tl.arange(0, EXPERTS_BLOCK)
    expert = tl.sum(((last_tile <= tile) & (index < NUM_EXPERTS)).to(tl.int32))
    is_own = index == expert
    start = tl.sum(tl.where(is_own, begin + (tile - last_tile + tl.cdiv(end - begin, BM)) * BM, 0))
    stop = tl.sum(tl.where(is_own, end, 0))
    return expert, start, stop


@triton.jit
def _gate_value_kernel(
    x,
    token_pointer,
    assignment_pointer,
    weight_pointer,
    end_pointer,
    w13,
    gate_value_pointer,
    hidden_pointer,
    DIM: tl.constexpr,
    HIDDEN_DIM: tl.constexpr,
    GATHER: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SAVE_PRODUCTS: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    EXPERTS_BLOCK: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    FLATTEN: tl.constexpr,
):
    num_n: tl.constexpr = (HIDDEN_DIM + BN - 1) // BN
    begin, end, last_tile = _tile_bounds(end_pointer, NUM_EXPERTS, EXPERTS_BLOCK, BM)
    for tile in tl.range(tl.program_id(0), tl.max(last_tile) * num_n, tl.num_programs(0), flatten=FLATTEN):
        expert, start, stop = _locate_tile(tile // num_n, begin, end, last_tile, NUM_EXPERTS, EXPERTS_BLOCK, BM)
        n = (tile % num_n) * BN
        row = start + tl.arange(0, BM)
        if GATHER:
            token = tl.load(token_pointer + row, mask=row < stop, other=0)
            x_pointers = x + token.to(tl.int64)[:, None] * DIM + tl.arange(0, BK)[None, :]
        gate = tl.zeros([BM, BN], tl.float32)
        value = tl.zeros([BM, BN], tl.float32)
        for k in range(0, DIM, BK):
            if GATHER:
                x_tile = tl.load(x_pointers + k)
            else:
                x_tile = x.load([start, k])
            gate = tl.dot(x_tile, w13.load([expert * HIDDEN_DIM + n, k]).T, gate)
            value = tl.dot(x_tile, w13.load([(NUM_EXPERTS + expert) * HIDDEN_DIM + n, k]).T, value)
        column = n + tl.arange(0, BN)
        inside = (row < stop)[:, None]
        if HIDDEN_DIM % BN != 0:
            inside = inside & (column < HIDDEN_DIM)[None, :]
        kind = hidden_pointer.dtype.element_ty
        if SAVE_PRODUCTS:
            pointers = gate_value_pointer + row.to(tl.int64)[:, None] * (2 * HIDDEN_DIM) + column[None, :]
            tl.store(pointers, gate.to(kind), mask=inside)
            tl.store(pointers + HIDDEN_DIM, value.to(kind), mask=inside)
        hidden = gate * tl.sigmoid(gate) * value
        if WEIGHTED:
            assignment = tl.load(assignment_pointer + row, mask=row < stop, other=0)
            hidden = hidden * tl.load(weight_pointer + assignment, mask=row < stop, other=0.0)[:, None]
        pointers = hidden_pointer + row.to(tl.int64)[:, None] * HIDDEN_DIM + column[None, :]
        tl.store(pointers, hidden.to(kind), mask=inside)


@triton.jit
def _rows_product_kernel(
    a,
    token_pointer,
    end_pointer,
    b,
    product_pointer,
    DEPTH: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    GATHER: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    EXPERTS_BLOCK: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    FLATTEN: tl.constexpr,
):
    num_n: tl.constexpr = (Q + BN - 1) // BN
    begin, end, last_tile = _tile_bounds(end_pointer, NUM_EXPERTS, EXPERTS_BLOCK, BM)
    for tile in tl.range(tl.program_id(0), tl.max(last_tile) * num_n, tl.num_programs(0), flatten=FLATTEN):
        expert, start, stop = _locate_tile(tile // num_n, begin, end, last_tile, NUM_EXPERTS, EXPERTS_BLOCK, BM)
        n = (tile % num_n) * BN
        row = start + tl.arange(0, BM)
        if GATHER:
            token = tl.load(token_pointer + row, mask=row < stop, other=0)
            a_pointers = a + token.to(tl.int64)[:, None] * DEPTH + tl.arange(0, BK)[None, :]
        total = tl.zeros([BM, BN], tl.float32)
        for k in range(0, DEPTH, BK):
            if GATHER:
                a_tile = tl.load(a_pointers + k)
            else:
                a_tile = a.load([start, k])
            if TRANSPOSED:
                total = tl.dot(a_tile, b.load([expert * Q + n, k]).T, total)
            else:
                plane = k // P * (NUM_EXPERTS - 1) * P
                total = tl.dot(a_tile, b.load([expert * P + k + plane, n]), total)
        column = n + tl.arange(0, BN)
        pointers = product_pointer + row.to(tl.int64)[:, None] * Q + column[None, :]
        inside = (row < stop)[:, None]
        if Q % BN != 0:
            inside = inside & (column < Q)[None, :]
        tl.store(pointers, total.to(product_pointer.dtype.element_ty), mask=inside)


@triton.jit
def _weight_gradient_kernel(
    a_pointer,
    token_pointer,
    b_pointer,
    end_pointer,
    first_accumulator,
    second_accumulator,
    P: tl.constexpr,
    Q: tl.constexpr,
    IS_PAIR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ADDS: tl.constexpr,
    GATHER: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    num_p: tl.constexpr = (P + BM - 1) // BM
    num_q: tl.constexpr = (Q + BN - 1) // BN
    num_halves: tl.constexpr = 2 if IS_PAIR and not INTERLEAVED else 1
    expert = tl.program_id(0) // (num_p * num_q * num_halves)
    half = tl.program_id(0) // (num_p * num_q) % num_halves
    p = (tl.program_id(0) % num_p) * BM + tl.arange(0, BM)
    q = (tl.program_id(0) // num_p % num_q) * BN + tl.arange(0, BN)
    start = tl.load(end_pointer + expert - 1, mask=expert > 0, other=0)
    stop = tl.load(end_pointer + expert)
    total = tl.zeros([BM, BN], tl.float32)
    for first in range(start, stop, BK):
        row = first + tl.arange(0, BK)
        a_row = row
        if GATHER:
            a_row = tl.load(token_pointer + row, mask=row < stop, other=0)
        a_inside = (row < stop)[:, None]
        b_inside = (row < stop)[:, None]
        if P % BM != 0:
            a_inside = a_inside & (p < P)[None, :]
        if Q % BN != 0:
            b_inside = b_inside & (q < Q)[None, :]
        a = tl.load(a_pointer + a_row.to(tl.int64)[:, None] * P + p[None, :], mask=a_inside, other=0.0)
        b_pointers = b_pointer + row.to(tl.int64)[:, None] * (Q * num_halves) + half * Q + q[None, :]
        b = tl.load(b_pointers, mask=b_inside, other=0.0)
        total = tl.dot(a.T, b, total)
    if IS_PAIR:
        inside = (q < Q)[:, None] & (p < P)[None, :]
        total = total.T
        if INTERLEAVED:
            offset = (expert.to(tl.int64) * (Q // 2) + q // 2)[:, None] * P + p[None, :]
            pointers = tl.where((q % 2 == 0)[:, None], first_accumulator, second_accumulator) + offset
        else:
            offset = (expert.to(tl.int64) * Q + q)[:, None] * P + p[None, :]
            pointers = tl.where(half == 0, first_accumulator, second_accumulator) + offset
    else:
        inside = (p < P)[:, None] & (q < Q)[None, :]
        pointers = first_accumulator + (expert.to(tl.int64) * P + p)[:, None] * Q + q[None, :]
    if ADDS:  # no other program adds to these elements; an atomic saves a load, whose tile would not fit into registers
        tl.atomic_add(pointers, total, mask=inside, sem="relaxed")
    else:
        tl.store(pointers, total.to(first_accumulator.dtype.element_ty), mask=inside)
