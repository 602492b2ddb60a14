"""Router logits and selection of experts in one kernel, in Triton. The reference is ``router.route``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos.moe.kernels import WIDTH


def route(
    x_ND: Tensor, gate_ED: Tensor, bias: Tensor, num_active: int, is_sigmoid: bool, selects: bool
) -> tuple[Tensor, Tensor]:
    """Return logits ``[N, E]`` in fp32 and the experts with the ``num_active`` largest score + bias, int32.

    Args:
        bias: fp32, ``[E]``, or ``[N, E]`` with one for each token.
        selects: whether to select experts; otherwise the second result has no columns.
    """
    num_tokens, dim = x_ND.shape
    num_experts = gate_ED.shape[0]
    gate_ED = gate_ED.contiguous()
    logits_NE = torch.empty(num_tokens, num_experts, dtype=torch.float32, device=x_ND.device)
    expert_indices_NK = torch.empty(num_tokens, num_active if selects else 0, dtype=torch.int32, device=x_ND.device)
    if num_tokens == 0:
        return logits_NE, expert_indices_NK
    parts_PED = _split(gate_ED) if x_ND.dtype == torch.bfloat16 else gate_ED[None]
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
        SELECTS=selects,
        BT=tile,
        BK=WIDTH,
        num_warps=8 if is_wide else 4,
        num_stages=3,
    )
    return logits_NE, expert_indices_NK


def _split(gate_ED: Tensor) -> Tensor:
    """Split into three bf16 matrices whose sum is exactly the fp32 one; bf16 products run at twice the rate of TF32."""
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
    SELECTS: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
):
    token = (tl.program_id(0) * BT + tl.arange(0, BT)).to(tl.int64)[:, None]
    expert = tl.arange(0, EXPERTS_BLOCK)[None, :]
    depth = tl.arange(0, BK)
    valid_token = token < num_tokens
    valid_expert = expert < NUM_EXPERTS
    x_pointers = x_pointer + token * DIM + depth[None, :]
    gate_pointers = gate_pointer + expert * DIM + depth[:, None]
    logits = tl.zeros([BT, EXPERTS_BLOCK], tl.float32)
    for start in range(0, DIM, BK):
        x = tl.load(x_pointers + start, mask=valid_token, other=0.0)
        for part in tl.static_range(NUM_PARTS):
            gate = tl.load(gate_pointers + part * NUM_EXPERTS * DIM + start, mask=valid_expert, other=0.0)
            logits = tl.dot(x, gate, logits, input_precision="tf32x3")  # as accurate as fp32, on tensor cores
    offset = token * NUM_EXPERTS + expert
    tl.store(logits_pointer + offset, logits, mask=valid_token & valid_expert)
    if SELECTS:
        if SIGMOID:
            score = tl.sigmoid(logits)
        else:
            logits = tl.where(valid_expert, logits, float("-inf"))
            score = tl.exp(logits - tl.max(logits, axis=1)[:, None])
            score = score / tl.sum(score, axis=1)[:, None]
        if BIAS_OF_TOKEN:
            score += tl.load(bias_pointer + offset, mask=valid_token & valid_expert, other=0.0)
        else:
            score += tl.load(bias_pointer + expert, mask=valid_expert, other=0.0)
        score = tl.where(valid_expert, score, float("-inf"))
        for slot in tl.static_range(NUM_ACTIVE):
            best = tl.argmax(score, axis=1)[:, None]
            tl.store(expert_pointer + token * NUM_ACTIVE + slot, best, mask=valid_token)
            score = tl.where(expert == best, float("-inf"), score)
