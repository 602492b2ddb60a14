"""Who may attend to whom, and attention by the fastest kernel that knows it."""

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

Mask = Tensor | BlockMask | Documents
"""A boolean ``[B, 1, S, S]``, true where a query sees a key; the same as blocks to compute and blocks to skip; or where
documents begin."""

_PREFERRED = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""On a GPU, the fastest first (docs/performance.md)."""


def document_mask(
    document_ids_BS: Tensor, dtype: torch.dtype, width: int | None = None, num_documents: int | None = None
) -> Mask:
    """Causal attention within documents, in the form that the fastest kernel here takes.

    Args:
        document_ids_BS: the document of each token; ids ascend along a sequence.
        dtype: what attention computes in. Blocks are for 16 bits on a GPU and lengths that are multiples of ``BLOCK``.
        width: of a head's query, key and value; None if they differ.
        num_documents: in the micro-batch; None if the host does not know.
    """
    if width is not None and num_documents is not None and is_available(document_ids_BS, dtype, width):
        return documents_of(document_ids_BS, num_documents)
    if document_ids_BS.is_cuda and dtype.itemsize == 2 and document_ids_BS.shape[1] % BLOCK == 0:
        return block_mask(document_ids_BS)
    return dense_mask(document_ids_BS)


def dense_mask(document_ids_BS: Tensor) -> Tensor:
    """Boolean ``[B, 1, S, S]``: true where the key is not after the query and in the same document."""
    same = document_ids_BS[:, None, :, None] == document_ids_BS[:, None, None, :]
    return same.tril()


def block_mask(document_ids_BS: Tensor) -> BlockMask:
    """The mask of ``dense_mask`` by blocks, from their first and last documents alone: nothing of size S x S is made.

    A block of keys is computed if its last document reaches the queries' first, and needs no mask within if one
    document spans both.
    """
    first_BN, last_BN = document_ids_BS[:, ::BLOCK], document_ids_BS[:, BLOCK - 1 :: BLOCK]
    num_blocks = first_BN.shape[1]
    earlier_NN = torch.ones(num_blocks, num_blocks, dtype=torch.bool, device=first_BN.device).tril(-1)
    diagonal_NN = torch.eye(num_blocks, dtype=torch.bool, device=first_BN.device)
    seen_BNN = last_BN[:, None, :] >= first_BN[:, :, None]
    full_BNN = earlier_NN & (first_BN[:, None, :] == last_BN[:, :, None])
    partial_BNN = (seen_BNN & earlier_NN & ~full_BNN) | diagonal_NN

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        return (query >= key) & (document_ids_BS[batch, query] == document_ids_BS[batch, key])

    return BlockMask.from_kv_blocks(
        *_listed(partial_BNN),
        *_listed(full_BNN),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(document_ids_BS.shape[1],) * 2,
    )


def mask_of_rows(mask: Mask, num_rows: int) -> Mask:
    """The mask of the first sequences of a batch."""
    if isinstance(mask, Tensor):
        return mask[:num_rows]
    if isinstance(mask, Documents):
        return mask.first(num_rows)
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


def _listed(wanted_BNN: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries wants, ``[B, 1, N]``, and which, wanted ones first."""
    order_BNN = wanted_BNN.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return wanted_BNN.sum(-1, dtype=torch.int32)[:, None], order_BNN.to(torch.int32)[:, None]


def attend(
    query_BHSP: Tensor, key_BGSP: Tensor, value_BGSP: Tensor, mask: Mask | None, scale: float | None = None
) -> Tensor:
    """Causal scaled dot-product attention; with more keys than queries, the queries are the newest tokens.

    Args:
        mask: None for plain causal attention, or a mask that already is causal.
    """
    num_queries, num_keys = query_BHSP.shape[2], key_BGSP.shape[2]
    enable_gqa = query_BHSP.shape[1] != key_BGSP.shape[1]
    if isinstance(mask, Documents):
        return attend_documents(query_BHSP, key_BGSP, value_BGSP, mask, scale)
    if isinstance(mask, BlockMask):
        run = _flex_attention if torch.compiler.is_compiling() else _compiled_flex_attention()
        return run(query_BHSP, key_BGSP, value_BGSP, block_mask=mask, scale=scale, enable_gqa=enable_gqa)
    if mask is None and 1 < num_queries < num_keys:
        mask = newest_mask(num_queries, num_keys, query_BHSP.device)
    with sdpa_kernel(_PREFERRED, set_priority=True) if query_BHSP.is_cuda else nullcontext():
        return functional.scaled_dot_product_attention(
            query_BHSP,
            key_BGSP,
            value_BGSP,
            attn_mask=mask,
            is_causal=mask is None and num_queries == num_keys,
            scale=scale,
            enable_gqa=enable_gqa,
        )


_flex_attention: Callable[..., Tensor] = flex.flex_attention


@cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    """For layers that are not compiled themselves: eager, it would write every score."""
    return torch.compile(_flex_attention, dynamic=False)


def newest_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Boolean ``[num_queries, num_keys]``: causal attention of the last tokens over all tokens."""
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return mask.tril(num_keys - num_queries)
