"""One transformer layer."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mythos.config.model import FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.attention_part import NO_INPUTS, Carry, LayerInputs
from mythos.layers.cache import KVCache
from mythos.layers.ffn import SwiGLU
from mythos.layers.mask import Mask
from mythos.layers.mla import LatentAttention
from mythos.layers.norm import RMSNorm
from mythos.layers.precision import compute_dtype
from mythos.layers.rope import Rotation
from mythos.layers.router_part import RouterPart
from mythos.moe.layer import MoE
from mythos.types import RouterStats


class BlockOutput(NamedTuple):
    """Result of a layer."""

    x_BSD: Tensor
    router: RouterStats | None
    """None for a dense layer, as is the next."""
    expert_indices_NK: Tensor | None
    carry: Carry
    """Next carry of the parts of its attention."""


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
        self.router_part = RouterPart()
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
        inputs: LayerInputs = NO_INPUTS,
    ) -> BlockOutput:
        """Run one layer.

        Args:
            bias_E: selection bias of the mixture of experts, ``[E]``, or ``[B, E]`` with one for each sequence.
            expert_indices_NK: expert indices that replace routing.
            inputs: inputs of the parts of attention and router.
        """
        attended, carry = self.attention(self.attention_norm(x_BSD), rotation, mask, cache, inputs)
        x_BSD = torch.add(x_BSD, self.attention_post_norm(attended), alpha=self.residual_scale)
        if self.is_moe:
            normed_BSD = self.ffn_norm(x_BSD)  # cast here, where compilation makes it part of the norm
            change, stats, expert_indices_NK = self.ffn(
                normed_BSD.to(compute_dtype(normed_BSD)), bias_E, expert_indices_NK, self.router_part.change(inputs)
            )
        else:
            change, stats = self.ffn(self.ffn_norm(x_BSD)), None
        x_BSD = torch.add(x_BSD, self.ffn_post_norm(change), alpha=self.residual_scale)
        return BlockOutput(x_BSD, stats, expert_indices_NK, carry)


def _attention(config: ModelConfig) -> nn.Module:
    match config.attention:
        case GQAConfig() as gqa:
            return GroupedQueryAttention(gqa, config.dim, config.head_dim, config.norm_eps)
        case MLAConfig() as mla:
            return LatentAttention(mla, config.dim, config.norm_eps)
