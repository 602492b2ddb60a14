"""Attention of each token over the slots of its carry, without a tensor of all keys."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def attend_to_slots(query_BSHP: Tensor, valid_NBSH: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
    """Return softmax(q k / sqrt(P)) v over the valid slots, ``[B, S, H, P]``; zero where none is valid.

    The backward computes the weights again, so that only the query and one number for each head are saved besides the
    slots, which the loops share.

    Args:
        valid_NBSH: whether a slot has mass; broadcast over its last three axes.
        slots: keys and values ``[B, S, 2, H, P]``.
    """
    return _SlotAttention.apply(query_BSHP, valid_NBSH, *slots)


class _SlotAttention(Function):
    """See ``attend_to_slots``; fp32 inside."""

    @staticmethod
    def forward(ctx: Any, query_BSHP: Tensor, valid_NBSH: Tensor, *slots: Tensor) -> Tensor:
        score_NBSH = _scores(query_BSHP, valid_NBSH, slots)
        lse_BSH = score_NBSH.logsumexp(0)
        lse_BSH = lse_BSH.masked_fill(lse_BSH.isneginf(), 0)  # no valid slot: all weights are exp(-inf - 0) = 0
        weight_NBSH = (score_NBSH - lse_BSH).exp()
        ctx.save_for_backward(query_BSHP, valid_NBSH, lse_BSH, *slots)
        read = sum(weight_BSH[..., None] * slot[:, :, 1] for weight_BSH, slot in zip(weight_NBSH, slots, strict=True))
        assert isinstance(read, Tensor)
        return read.to(query_BSHP.dtype)

    @staticmethod
    def backward(ctx: Any, grad_BSHP: Tensor) -> tuple[Tensor | None, ...]:
        query_BSHP, valid_NBSH, lse_BSH, *slots = ctx.saved_tensors
        weight_NBSH = (_scores(query_BSHP, valid_NBSH, slots) - lse_BSH).exp()
        grad_BSHP, scaled_BSHP = grad_BSHP.float(), query_BSHP.float() * _scale(query_BSHP)
        gain_NBSH = torch.stack([(grad_BSHP * slot[:, :, 1]).sum(-1) for slot in slots])
        score_grad_NBSH = weight_NBSH * (gain_NBSH - (weight_NBSH * gain_NBSH).sum(0))
        query_grad_BSHP = torch.zeros_like(grad_BSHP)
        slot_grads: list[Tensor | None] = []
        for index, slot in enumerate(slots):
            score_grad_BSH1, weight_BSH1 = score_grad_NBSH[index, ..., None], weight_NBSH[index, ..., None]
            query_grad_BSHP += score_grad_BSH1 * slot[:, :, 0]
            pair = (score_grad_BSH1 * scaled_BSHP, weight_BSH1 * grad_BSHP)
            slot_grads.append(torch.stack(pair, dim=2).to(slot.dtype) if ctx.needs_input_grad[2 + index] else None)
        return (query_grad_BSHP * _scale(query_BSHP)).to(query_BSHP.dtype), None, *slot_grads


def _scores(query_BSHP: Tensor, valid_NBSH: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
    """Scores ``[N, B, S, H]``, fp32; -inf at slots that are not valid."""
    scaled_BSHP = query_BSHP.float() * _scale(query_BSHP)
    score_NBSH = torch.stack([(scaled_BSHP * slot[:, :, 0]).sum(-1) for slot in slots])
    return score_NBSH.masked_fill(~valid_NBSH, float("-inf"))


def _scale(query_BSHP: Tensor) -> float:
    return float(query_BSHP.shape[-1] ** -0.5)
