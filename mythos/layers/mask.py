"""Attention masks, and attention with the fastest kernel for each kind of mask."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import BlockMask

from mythos.layers.documents import Documents, attend_documents, documents_of, is_available

BLOCK = 128
"""Queries and keys in a block of ``BlockMask``."""


class Unmasked:
    """Mask with which every query attends to every key."""


UNMASKED = Unmasked()
Mask = Tensor | BlockMask | Documents | Unmasked
"""A boolean ``[B, 1, S, S]``, true where a query attends to a key; the same as a block mask; the offsets of the
documents; or no mask at all."""

_PREFERRED = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""Backends on a GPU, the fastest first (docs/performance.md)."""


def document_mask(
    document_ids_BS: Tensor, dtype: torch.dtype, width: int | None = None, num_documents: int | None = None
) -> Mask:
    """Return the mask of causal attention within documents, in the form that the fastest available kernel reads.

    Args:
        document_ids_BS: document of each token; ids ascend along a sequence.
        dtype: dtype of attention. Block masks need 16 bits, a GPU and lengths that are multiples of ``BLOCK``.
        width: head width of query, key and value; None if they differ.
        num_documents: documents of the micro-batch; None if the host does not know their number.
    """
    if width is not None and num_documents is not None and is_available(document_ids_BS, dtype, width):
        return documents_of(document_ids_BS, num_documents)
    if document_ids_BS.is_cuda and dtype.itemsize == 2 and document_ids_BS.shape[1] % BLOCK == 0:
        return block_mask(document_ids_BS)
    return dense_mask(document_ids_BS)


def dense_mask(document_ids_BS: Tensor) -> Tensor:
    """Return boolean ``[B, 1, S, S]``, true where the key is not after the query and in the same document."""
    same = document_ids_BS[:, None, :, None] == document_ids_BS[:, None, None, :]
    return same.tril()


def block_mask(document_ids_BS: Tensor) -> BlockMask:
    """Return the mask of ``dense_mask`` as blocks, computed from their first and last documents without S x S tensors.

    A block of keys is computed if its last document is not before the first document of the queries, and is full if
    one document spans both.
    """
    first_BN, last_BN = document_ids_BS[:, ::BLOCK], document_ids_BS[:, BLOCK - 1 :: BLOCK]
    num_blocks = first_BN.shape[1]
    earlier_NN = torch.ones(num_blocks, num_blocks, dtype=torch.bool, device=first_BN.device).tril(-1)
    diagonal_NN = torch.eye(num_blocks, dtype=torch.bool, device=first_BN.device)
    attended_BNN = last_BN[:, None, :] >= first_BN[:, :, None]
    full_BNN = earlier_NN & (first_BN[:, None, :] == last_BN[:, :, None])
    partial_BNN = (attended_BNN & earlier_NN & ~full_BNN) | diagonal_NN

    def attends(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        return (query >= key) & (document_ids_BS[batch, query] == document_ids_BS[batch, key])

    return BlockMask.from_kv_blocks(
        *_block_lists(partial_BNN),
        *_block_lists(full_BNN),
        BLOCK_SIZE=BLOCK,
        mask_mod=attends,
        seq_lengths=(document_ids_BS.shape[1],) * 2,
    )


def mask_of_rows(mask: Mask, num_rows: int) -> Mask:
    """Return the mask of the first sequences of a batch."""
    if isinstance(mask, Tensor):
        return mask[:num_rows]
    if isinstance(mask, Documents):
        return mask.first(num_rows)
    assert isinstance(mask, BlockMask)
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    return BlockMask.from_kv_blocks(
        mask.kv_num_blocks[:num_rows],
        mask.kv_indices[:num_rows],
        mask.full_kv_num_blocks[:num_rows],
        mask.full_kv_indices[:num_rows],
        BLOCK_SIZE=mask.BLOCK_SIZE,
        mask_mod=mask.mask_mod,
        seq_lengths=mask.seq_lengths,
    )


def _block_lists(needed_BNN: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of blocks of keys that each block of queries needs, ``[B, 1, N]``, and their indices first."""
    order_BNN = needed_BNN.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return needed_BNN.sum(-1, dtype=torch.int32)[:, None], order_BNN.to(torch.int32)[:, None]


def attend(
    query_BHSP: Tensor, key_BGSP: Tensor, value_BGSP: Tensor, mask: Mask | None, scale: float | None = None
) -> Tensor:
    """Compute causal scaled dot-product attention; with more keys than queries, the queries are the last tokens.

    Args:
        mask: None for plain causal attention, a causal mask, or ``UNMASKED``.
    """
    is_causal = mask is None
    if isinstance(mask, Unmasked):
        mask = None
    num_queries, num_keys = query_BHSP.shape[2], key_BGSP.shape[2]
    enable_gqa = query_BHSP.shape[1] != key_BGSP.shape[1]
    if isinstance(mask, Documents):
        return attend_documents(query_BHSP, key_BGSP, value_BGSP, mask, scale)
    if isinstance(mask, BlockMask):
        run = _flex_attention if torch.compiler.is_compiling() else _compiled_flex_attention()
        return run(query_BHSP, key_BGSP, value_BGSP, block_mask=mask, scale=scale, enable_gqa=enable_gqa)
    if is_causal and 1 < num_queries < num_keys:
        mask = causal_mask(num_queries, num_keys, query_BHSP.device)
    with sdpa_kernel(_PREFERRED, set_priority=True) if query_BHSP.is_cuda else nullcontext():
        return functional.scaled_dot_product_attention(
            query_BHSP,
            key_BGSP,
            value_BGSP,
            attn_mask=mask,
            is_causal=is_causal and num_queries == num_keys,
            scale=scale,
            enable_gqa=enable_gqa,
        )


_flex_attention: Callable[..., Tensor] = flex.flex_attention


@cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    """Compile for layers that are not compiled themselves; eager flex attention writes every score."""
    return torch.compile(_flex_attention, dynamic=False)


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return boolean ``[num_queries, num_keys]`` of causal attention of the last tokens over all tokens."""
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return mask.tril(num_keys - num_queries)
