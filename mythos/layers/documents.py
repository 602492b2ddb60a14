"""Causal attention within documents with flash-attn-4, whose kernels support documents of variable length.

FlexAttention computes whole blocks of 128 x 128 and masks within them; here each document is a sequence of its own, so
that nothing outside of it is read (docs/performance.md). Tests compare it with a reference implementation in PyTorch.
"""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mythos.layers.kernels import HAS_FLASH

MAX_WIDTH = 128
"""Largest head width with which the kernels were tested."""
_MIN_CAPACITY = 64


class Documents(NamedTuple):
    """Offsets of the documents of a micro-batch, whose sequences are concatenated."""

    begin_C: Tensor
    """int32: index of the first token of each document, ascending, padded with the number of tokens."""
    length: int
    """Tokens of a sequence, the largest possible length of a document."""

    def first(self, num_rows: int) -> "Documents":
        """Return the documents of the first sequences."""
        return self._replace(begin_C=self.begin_C.clamp(max=num_rows * self.length))


def documents_of(document_ids_BS: Tensor, num_documents: int) -> Documents:
    """Find the offsets of the documents on the device, without synchronising the host.

    Args:
        document_ids_BS: document of each token; ids ascend along a sequence.
        num_documents: number of documents; one that continues in the next sequence counts twice.
    """
    opens_BS = functional.pad(document_ids_BS.diff(dim=1) != 0, (1, 0), value=True)
    capacity = max(_MIN_CAPACITY, 1 << (num_documents - 1).bit_length())  # few sizes, and a dynamic one when compiled
    begin_C = torch.nonzero_static(opens_BS.flatten(), size=capacity + 1, fill_value=opens_BS.numel())
    begin_C = begin_C.flatten().to(torch.int32)
    torch._dynamo.mark_dynamic(begin_C, 0)
    return Documents(begin_C, document_ids_BS.shape[1])


def count_documents(document_ids_BS: Tensor) -> int:
    """Return ``num_documents`` of these ids; synchronises with the device."""
    return document_ids_BS.shape[0] + int(document_ids_BS.diff(dim=1).count_nonzero())


def is_available(x: Tensor, dtype: torch.dtype, width: int) -> bool:
    """Whether the kernels support heads of this width: in 16 bits, on a Hopper GPU or later, with flash-attn-4."""
    return (
        x.is_cuda
        and HAS_FLASH
        and dtype.itemsize == 2
        and width % 8 == 0
        and width <= MAX_WIDTH
        and torch.cuda.get_device_capability(x.device) >= (9, 0)
    )


def attend_documents(
    query_BHSP: Tensor, key_BGSP: Tensor, value_BGSP: Tensor, documents: Documents, scale: float | None
) -> Tensor:
    """Compute attention of each token to itself and to earlier tokens of its document."""
    parts = [part.transpose(1, 2).flatten(0, 1) for part in (query_BHSP, key_BGSP, value_BGSP)]
    scale = query_BHSP.shape[-1] ** -0.5 if scale is None else scale
    mixed_NHP, _ = _attend(*parts, documents.begin_C, documents.length, scale)
    return mixed_NHP.unflatten(0, (-1, query_BHSP.shape[2])).transpose(1, 2)


@torch.library.custom_op("mythos::attend_documents", mutates_args=())
def _attend(
    query_NHP: Tensor, key_NGP: Tensor, value_NGP: Tensor, begin_C: Tensor, length: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the attention output and the log-partitions ``[H, N]``, fp32."""
    if not query_NHP.is_cuda:
        return _reference(query_NHP, key_NGP, value_NGP, begin_C, scale)
    mixed_NHP, lse_HN, *_ = _interface()._flash_attn_fwd(
        query_NHP, key_NGP, value_NGP, return_lse=True, **_options(begin_C, length, scale)
    )
    return mixed_NHP, lse_HN


@torch.library.custom_op("mythos::attend_documents_backward", mutates_args=())
def _attend_backward(
    grad_NHP: Tensor,
    query_NHP: Tensor,
    key_NGP: Tensor,
    value_NGP: Tensor,
    mixed_NHP: Tensor,
    lse_HN: Tensor,
    begin_C: Tensor,
    length: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of query, key and value."""
    if not query_NHP.is_cuda:
        return _reference_backward(grad_NHP, query_NHP, key_NGP, value_NGP, lse_HN, begin_C, scale)
    grad_query, grad_key, grad_value, *_ = _interface()._flash_attn_bwd(
        query_NHP, key_NGP, value_NGP, mixed_NHP, grad_NHP, lse_HN, **_options(begin_C, length, scale)
    )
    return grad_query, grad_key, grad_value


def _interface() -> ModuleType:
    """Import flash-attn-4 late, because the import takes seconds."""
    from flash_attn.cute import interface

    return interface


def _options(begin_C: Tensor, length: int, scale: float) -> dict[str, Any]:
    begins = {"cu_seqlens_q": begin_C, "cu_seqlens_k": begin_C}
    return {"softmax_scale": scale, "causal": True, "max_seqlen_q": length, "max_seqlen_k": length, **begins}


def _reference(
    query_NHP: Tensor, key_NGP: Tensor, value_NGP: Tensor, begin_C: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute attention with the scores of all pairs of tokens, most of them masked."""
    score_GRNN = _scores(query_NHP, key_NGP, begin_C, scale)
    mixed_NGRP = torch.einsum("grnm,mgp->ngrp", score_GRNN.softmax(-1), value_NGP)
    return mixed_NGRP.flatten(1, 2), score_GRNN.logsumexp(-1).flatten(0, 1).float()


def _reference_backward(
    grad_NHP: Tensor,
    query_NHP: Tensor,
    key_NGP: Tensor,
    value_NGP: Tensor,
    lse_HN: Tensor,
    begin_C: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    score_GRNN = _scores(query_NHP, key_NGP, begin_C, scale)
    weight_GRNN = (score_GRNN - lse_HN.view(*score_GRNN.shape[:3], 1)).exp()
    grad_NGRP, query_NGRP = (x.unflatten(1, (key_NGP.shape[1], -1)) for x in (grad_NHP, query_NHP))
    grad_weight_GRNN = torch.einsum("ngrp,mgp->grnm", grad_NGRP, value_NGP)
    mean_GRN1 = (grad_weight_GRNN * weight_GRNN).sum(-1, keepdim=True)
    grad_score_GRNN = weight_GRNN * (grad_weight_GRNN - mean_GRN1) * scale
    return (
        torch.einsum("grnm,mgp->ngrp", grad_score_GRNN, key_NGP).flatten(1, 2),
        torch.einsum("grnm,ngrp->mgp", grad_score_GRNN, query_NGRP),
        torch.einsum("grnm,ngrp->mgp", weight_GRNN, grad_NGRP),
    )


def _scores(query_NHP: Tensor, key_NGP: Tensor, begin_C: Tensor, scale: float) -> Tensor:
    """Return scores ``[G, R, N, N]``, with R query heads for each key head; minus infinity where they are masked."""
    position_N = torch.arange(query_NHP.shape[0], device=query_NHP.device)
    document_N = torch.searchsorted(begin_C, position_N, right=True)
    attends_NN = (document_N[:, None] == document_N) & (position_N[:, None] >= position_N)
    query_NGRP = query_NHP.unflatten(1, (key_NGP.shape[1], -1))
    return torch.einsum("ngrp,mgp->grnm", query_NGRP, key_NGP).mul(scale).masked_fill(~attends_NN, float("-inf"))


@_attend.register_fake
def _(query, key, value, begin, length, scale):  # type: ignore[no-untyped-def]
    num_tokens, num_heads, _ = query.shape
    return query.new_empty(query.shape), query.new_empty(num_heads, num_tokens, dtype=torch.float32)


@_attend_backward.register_fake
def _(grad, query, key, value, mixed, lse, begin, length, scale):  # type: ignore[no-untyped-def]
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.length, ctx.scale = inputs
    query_NHP, key_NGP, value_NGP, begin_C = tensors
    ctx.save_for_backward(query_NHP, key_NGP, value_NGP, *output, begin_C)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_NHP: Tensor, _: None) -> tuple[Tensor | None, ...]:
    grads = _attend_backward(grad_NHP.contiguous(), *ctx.saved_tensors, ctx.length, ctx.scale)
    return *grads, None, None, None


_attend.register_autograd(_backward, setup_context=_setup_context)
