"""Router logits and the choice of experts in one kernel, in Triton. The twin is ``router.route``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos.moe.kernels import WIDTH


def route(
    x_ND: Tensor, gate_ED: Tensor, bias: Tensor, num_active: int, is_sigmoid: bool, chooses: bool
) -> tuple[Tensor, Tensor]:
    """Logits ``[N, E]`` in fp32 and the experts of the ``num_active`` largest score + bias, int32.

    Args:
        bias: fp32, ``[E]``, or ``[N, E]`` with one for each token.
        chooses: whether to choose at all; without, the second result has no columns.
    """
    num_tokens, dim = x_ND.shape
    num_experts = gate_ED.shape[0]
    gate_ED = gate_ED.contiguous()
    logits_NE = torch.empty(num_tokens, num_experts, dtype=torch.float32, device=x_ND.device)
    expert_indices_NK = torch.empty(num_tokens, num_active if chooses else 0, dtype=torch.int32, device=x_ND.device)
    if num_tokens == 0:
        return logits_NE, expert_indices_NK
    parts_PED = _parts(gate_ED) if x_ND.dtype == torch.bfloat16 else gate_ED[None]
    is_wide = num_experts > 128
    tile = 32 if is_wide else 64
    _route_kernel[(triton.cdiv(num_tokens, tile),)](
        x_ND,
        parts_PED,
        bias,
        logits_NE,
        expert_indices_NK,
        num_tokens,
        DIM=dim,
        NUM_PARTS=parts_PED.shape[0],
        NUM_EXPERTS=num_experts,
        EXPERTS_BLOCK=max(16, triton.next_power_of_2(num_experts)),
        NUM_ACTIVE=num_active,
        BIAS_OF_TOKEN=bias.dim() == 2,
        SIGMOID=is_sigmoid,
        CHOOSES=chooses,
        BT=tile,
        BK=WIDTH,
        num_warps=8 if is_wide else 4,
        num_stages=3,
    )
    return logits_NE, expert_indices_NK


def _parts(gate_ED: Tensor) -> Tensor:
    """Three bf16 matrices whose sum is the fp32 one to the last bit: products of bf16 run at twice TF32's rate."""
    parts, rest_ED = [], gate_ED.float()
    for _ in range(3):
        parts.append(rest_ED.bfloat16())
        rest_ED = rest_ED - parts[-1].float()
    return torch.stack(parts)


@triton.jit
def _route_kernel(
    x_pointer,
    gate_pointer,
    bias_pointer,
    logits_pointer,
    expert_pointer,
    num_tokens,
    DIM: tl.constexpr,
    NUM_PARTS: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    EXPERTS_BLOCK: tl.constexpr,
    NUM_ACTIVE: tl.constexpr,
    BIAS_OF_TOKEN: tl.constexpr,
    SIGMOID: tl.constexpr,
    CHOOSES: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
):
    token = (tl.program_id(0) * BT + tl.arange(0, BT)).to(tl.int64)[:, None]
    expert = tl.arange(0, EXPERTS_BLOCK)[None, :]
    depth = tl.arange(0, BK)
    there = token < num_tokens
    real = expert < NUM_EXPERTS
    x_place = x_pointer + token * DIM + depth[None, :]
    gate_place = gate_pointer + expert * DIM + depth[:, None]
    logits = tl.zeros([BT, EXPERTS_BLOCK], tl.float32)
    for start in range(0, DIM, BK):
        x = tl.load(x_place + start, mask=there, other=0.0)
        for part in tl.static_range(NUM_PARTS):
            gate = tl.load(gate_place + part * NUM_EXPERTS * DIM + start, mask=real, other=0.0)
            logits = tl.dot(x, gate, logits, input_precision="tf32x3")  # as exact as fp32, on the matrix units
    place = token * NUM_EXPERTS + expert
    tl.store(logits_pointer + place, logits, mask=there & real)
    if CHOOSES:
        if SIGMOID:
            score = tl.sigmoid(logits)
        else:
            logits = tl.where(real, logits, float("-inf"))
            score = tl.exp(logits - tl.max(logits, axis=1)[:, None])
            score = score / tl.sum(score, axis=1)[:, None]
        if BIAS_OF_TOKEN:
            score += tl.load(bias_pointer + place, mask=there & real, other=0.0)
        else:
            score += tl.load(bias_pointer + expert, mask=real, other=0.0)
        score = tl.where(real, score, float("-inf"))
        for choice in tl.static_range(NUM_ACTIVE):
            best = tl.argmax(score, axis=1)[:, None]
            tl.store(expert_pointer + token * NUM_ACTIVE + choice, best, mask=there)
            score = tl.where(expert == best, float("-inf"), score)
