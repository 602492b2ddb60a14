"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)."""

from functools import partial

from torch import Tensor, cat, einsum, nn

from mythos.config.model import MLAConfig
from mythos.layers.attention_part import NO_INPUTS, AttentionPart, Carry, LayerInputs, attend_with
from mythos.layers.cache import KVCache
from mythos.layers.mask import Mask, Unmasked, attend, causal_mask
from mythos.layers.norm import RMSNorm
from mythos.layers.projection import Projection
from mythos.layers.rope import Rotation, rotate


class LatentAttention(nn.Module):
    """Keys and values are projections of one normed latent c = norm(W x), plus one rotated key for all heads.

    Training expands the latent into keys and values. Decoding caches only c and the rotated key, and applies the
    expansion to query and output (the absorbed form): q_nope^T (W_k c) = (W_k^T q_nope)^T c.
    """

    def __init__(self, config: MLAConfig, dim: int, eps: float) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.nope_head_dim = config.nope_head_dim
        self.rope_head_dim = config.rope_head_dim
        self.value_head_dim = config.value_head_dim
        query_dim = config.num_heads * (config.nope_head_dim + config.rope_head_dim)
        if config.query_rank is None:
            self.q_proj = Projection(dim, query_dim)
        else:
            self.q_down = Projection(dim, config.query_rank)
            self.q_latent_norm = RMSNorm(config.query_rank, eps) if config.qk_norm else nn.Identity()
            self.q_up = Projection(config.query_rank, query_dim)
        self.kv_down = Projection(dim, config.kv_rank)
        self.kv_latent_norm = RMSNorm(config.kv_rank, eps) if config.qk_norm else nn.Identity()
        self.k_rope = Projection(dim, config.rope_head_dim)
        self.kv_up = Projection(config.kv_rank, config.num_heads * (config.nope_head_dim + config.value_head_dim))
        self.o_proj = Projection(config.num_heads * config.value_head_dim, dim)
        self.part = AttentionPart()
        self.scale = (config.nope_head_dim + config.rope_head_dim) ** -0.5

    def forward(
        self,
        x_BSD: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        cache: KVCache | None = None,
        inputs: LayerInputs = NO_INPUTS,
    ) -> tuple[Tensor, Carry]:
        """Compute attention, and the carry of the layer's parts; with a cache, ``x_BSD`` holds only the new tokens."""
        query_BSD = self.q_proj(x_BSD) if hasattr(self, "q_proj") else self.q_up(self._query_latent(x_BSD))
        query_BSHP = query_BSD.unflatten(-1, (self.num_heads, -1))
        latent_BSR = self.kv_latent_norm(self.kv_down(x_BSD))
        heads = self.part.project(x_BSD, (query_BSHP, latent_BSR, self.k_rope(x_BSD)), inputs)
        query_BSHP, latent_BSR, key_rope_BSP = heads
        nope_BSHP, rope_BSHP = query_BSHP.split((self.nope_head_dim, self.rope_head_dim), dim=-1)
        rope_BSHP = rotate(rope_BSHP, rotation)
        key_rope_BSP = rotate(key_rope_BSP.unsqueeze(2), rotation).squeeze(2)
        attend_over = self._expanded if cache is None else self._absorbed
        read, inputs = partial(attend_over, nope_BSHP, rope_BSHP), inputs._replace(unplaced=self._unplaced)
        mixed_BSHP, carry = attend_with(self.part, read, (latent_BSR, key_rope_BSP), mask, cache, inputs)
        return self.o_proj(mixed_BSHP.flatten(2)), carry

    def _unplaced(self, x_BCD: Tensor) -> tuple[Tensor, ...]:
        """Latents and shared keys of vectors without a position; keys are not rotated."""
        return self.kv_latent_norm(self.kv_down(x_BCD)), self.k_rope(x_BCD)

    def _query_latent(self, x_BSD: Tensor) -> Tensor:
        return self.q_latent_norm(self.q_down(x_BSD))

    def _expanded(self, nope_BSHP: Tensor, rope_BSHP: Tensor, memory: tuple[Tensor, ...], mask: Mask | None) -> Tensor:
        """Attention over the expanded keys and values of every head."""
        latent_BSR, key_rope_BSP = memory
        both_BSHP = self.kv_up(latent_BSR).unflatten(-1, (self.num_heads, -1))
        key_BSHP, value_BSHP = both_BSHP.split((self.nope_head_dim, self.value_head_dim), dim=-1)
        key_rope_BSHP = key_rope_BSP.unsqueeze(2).expand(-1, -1, self.num_heads, -1)
        query_BHSP = _join(nope_BSHP, rope_BSHP).transpose(1, 2)
        key_BHSP = _join(key_BSHP, key_rope_BSHP).transpose(1, 2)
        return attend(query_BHSP, key_BHSP, value_BSHP.transpose(1, 2), mask, self.scale).transpose(1, 2)

    def _absorbed(self, nope_BSHP: Tensor, rope_BSHP: Tensor, memory: tuple[Tensor, ...], mask: Mask | None) -> Tensor:
        """Attention over the latents; C is the number of cached tokens."""
        latent_BCR, key_rope_BCP = memory
        up_HPR = self.kv_up.weight.unflatten(0, (self.num_heads, -1))
        key_up_HPR, value_up_HPR = up_HPR.split((self.nope_head_dim, self.value_head_dim), dim=1)
        query_BSHR = einsum("bshp,hpr->bshr", nope_BSHP, key_up_HPR)
        score_BHSC = einsum("bshr,bcr->bhsc", query_BSHR, latent_BCR)
        score_BHSC = (score_BHSC + einsum("bshp,bcp->bhsc", rope_BSHP, key_rope_BCP)) * self.scale
        if mask is None:
            mask = causal_mask(score_BHSC.shape[2], score_BHSC.shape[3], score_BHSC.device)
        if not isinstance(mask, Unmasked):
            assert isinstance(mask, Tensor), "decoding has no block masks"
            score_BHSC = score_BHSC.masked_fill(~mask, float("-inf"))
        weight_BHSC = score_BHSC.float().softmax(-1).to(score_BHSC.dtype)
        mixed_BSHR = einsum("bhsc,bcr->bshr", weight_BHSC, latent_BCR)
        return einsum("bshr,hpr->bshp", mixed_BSHR, value_up_HPR)


def _join(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate the parts of a head; under autocast they can differ in dtype."""
    return cat((first, second.to(first.dtype)), dim=-1)
