"""Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) with optional query-key normalisation."""

from functools import partial

from torch import Tensor, nn

from mythos.config.model import GQAConfig
from mythos.layers.attention_part import NO_INPUTS, AttentionPart, Carry, LayerInputs, attend_with
from mythos.layers.cache import KVCache
from mythos.layers.heads import norm_and_rotate
from mythos.layers.mask import Mask, attend
from mythos.layers.norm import RMSNorm
from mythos.layers.projection import Projection
from mythos.layers.rope import Rotation


class GroupedQueryAttention(nn.Module):
    """y = W_o softmax(q k^T / sqrt(P)) v, where each group of query heads shares one key-value head."""

    def __init__(self, config: GQAConfig, dim: int, head_dim: int, eps: float) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.q_proj = Projection(dim, config.num_heads * head_dim)
        self.k_proj = Projection(dim, config.num_kv_heads * head_dim)
        self.v_proj = Projection(dim, config.num_kv_heads * head_dim)
        self.o_proj = Projection(config.num_heads * head_dim, dim)
        self.q_norm = RMSNorm(head_dim, eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_dim, eps) if config.qk_norm else nn.Identity()
        self.part = AttentionPart()

    def forward(
        self,
        x_BSD: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        cache: KVCache | None = None,
        inputs: LayerInputs = NO_INPUTS,
    ) -> tuple[Tensor, Carry]:
        """Compute attention, and the carry of the layer's parts; with a cache, ``x_BSD`` holds only the new tokens."""
        query_BSHP = self.q_proj(x_BSD).unflatten(-1, (self.num_heads, -1))
        key_BSGP = self.k_proj(x_BSD).unflatten(-1, (self.num_kv_heads, -1))
        value_BSGP = self.v_proj(x_BSD).unflatten(-1, (self.num_kv_heads, -1))
        heads = self.part.project(x_BSD, (query_BSHP, key_BSGP, value_BSGP), inputs)
        query_BSHP, key_BSGP, value_BSGP = heads
        query_BSHP = norm_and_rotate(query_BSHP, self.q_norm, rotation)
        key_BSGP = norm_and_rotate(key_BSGP, self.k_norm, rotation)
        read, inputs = partial(_read, query_BSHP), inputs._replace(unplaced=self._unplaced)
        mixed_BSHP, carry = attend_with(self.part, read, (key_BSGP, value_BSGP), mask, cache, inputs)
        return self.o_proj(mixed_BSHP.flatten(2)), carry

    def _unplaced(self, x_BCD: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of vectors without a position; keys are not rotated."""
        key_BCGP = self.k_norm(self.k_proj(x_BCD).unflatten(-1, (self.num_kv_heads, -1)))
        return key_BCGP, self.v_proj(x_BCD).unflatten(-1, (self.num_kv_heads, -1))


def _read(query_BSHP: Tensor, memory: tuple[Tensor, ...], mask: Mask | None) -> Tensor:
    """Attention over keys and values ``[B, C, G, P]``."""
    query_BHSP, key_BGCP, value_BGCP = (each.transpose(1, 2) for each in (query_BSHP, *memory))
    return attend(query_BHSP, key_BGCP, value_BGCP, mask).transpose(1, 2)
