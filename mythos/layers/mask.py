"""Who may attend to whom."""

import torch
from torch import Tensor
from torch.nn import functional


def document_mask(document_ids_BS: Tensor) -> Tensor:
    """Boolean ``[B, 1, S, S]``: true where the key is not after the query and in the same document."""
    same = document_ids_BS[:, None, :, None] == document_ids_BS[:, None, None, :]
    return same.tril()


def attend(
    query_BHSP: Tensor, key_BGSP: Tensor, value_BGSP: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """Causal scaled dot-product attention; with more keys than queries, the queries are the newest tokens.

    Args:
        mask: None for plain causal attention, or a boolean mask that already is causal.
    """
    num_queries, num_keys = query_BHSP.shape[2], key_BGSP.shape[2]
    if mask is None and 1 < num_queries < num_keys:
        mask = newest_mask(num_queries, num_keys, query_BHSP.device)
    return functional.scaled_dot_product_attention(
        query_BHSP,
        key_BGSP,
        value_BGSP,
        attn_mask=mask,
        is_causal=mask is None and num_queries == num_keys,
        scale=scale,
        enable_gqa=query_BHSP.shape[1] != key_BGSP.shape[1],
    )


def newest_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Boolean ``[num_queries, num_keys]``: causal attention of the last tokens over all tokens."""
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return mask.tril(num_keys - num_queries)
