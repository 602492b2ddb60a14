"""One transformer layer."""

import torch
from torch import Tensor, nn

from mythos.config.model import FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.cache import KVCache
from mythos.layers.ffn import SwiGLU
from mythos.layers.mask import Mask
from mythos.layers.mla import LatentAttention
from mythos.layers.norm import RMSNorm
from mythos.layers.precision import compute_dtype
from mythos.layers.rope import Rotation
from mythos.moe.layer import MoE
from mythos.types import RouterStats


class Block(nn.Module):
    """x = x + s attention(norm(x)); x = x + s ffn(norm(x)). ``sandwich`` also normalises what is added.

    The scale s is 1 outside the core.
    """

    def __init__(self, config: ModelConfig, ffn: FeedForwardConfig, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = _attention(config)
        self.is_moe = ffn.kind == "moe"
        self.ffn = MoE(ffn, config.dim) if ffn.kind == "moe" else SwiGLU(config.dim, ffn.hidden_dim)
        if config.norm_position == "sandwich":
            self.attention_post_norm: nn.Module = RMSNorm(config.dim, config.norm_eps)
            self.ffn_post_norm: nn.Module = RMSNorm(config.dim, config.norm_eps)
        else:
            self.attention_post_norm = nn.Identity()
            self.ffn_post_norm = nn.Identity()

    def forward(
        self,
        x_BSD: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        bias_E: Tensor | None = None,
        cache: KVCache | None = None,
        expert_indices_NK: Tensor | None = None,
    ) -> tuple[Tensor, RouterStats | None, Tensor | None]:
        """One layer; the last two results are those of a mixture of experts.

        Args:
            bias_E: selection bias of the mixture of experts, ``[E]``, or ``[B, E]`` with one for each row.
            expert_indices_NK: experts to take instead of choosing anew.
        """
        attended = self.attention(self.attention_norm(x_BSD), rotation, mask, cache)
        x_BSD = torch.add(x_BSD, self.attention_post_norm(attended), alpha=self.residual_scale)
        if self.is_moe:
            normed_BSD = self.ffn_norm(x_BSD)  # cast here, where compilation makes it part of the norm
            change, stats, expert_indices_NK = self.ffn(
                normed_BSD.to(compute_dtype(normed_BSD)), bias_E, expert_indices_NK
            )
        else:
            change, stats = self.ffn(self.ffn_norm(x_BSD)), None
        return torch.add(x_BSD, self.ffn_post_norm(change), alpha=self.residual_scale), stats, expert_indices_NK


def _attention(config: ModelConfig) -> nn.Module:
    match config.attention:
        case GQAConfig() as gqa:
            return GroupedQueryAttention(gqa, config.dim, config.head_dim, config.norm_eps)
        case MLAConfig() as mla:
            return LatentAttention(mla, config.dim, config.norm_eps)
