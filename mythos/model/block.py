"""One transformer layer."""

from torch import Tensor, nn

from mythos.config.model import FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.cache import Past
from mythos.layers.ffn import SwiGLU
from mythos.layers.mask import Mask
from mythos.layers.mla import LatentAttention
from mythos.layers.norm import RMSNorm
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
        cache: Past | None = None,
        choice_NK: Tensor | None = None,
    ) -> tuple[Tensor, RouterStats | None, Tensor | None]:
        """One layer; the last two results are those of a mixture of experts.

        Args:
            bias_E: selection bias of the mixture of experts, ``[E]``, or ``[B, E]`` with one for each row.
            choice_NK: experts to take instead of choosing anew.
        """
        attended = self.attention(self.attention_norm(x_BSD), rotation, mask, cache)
        x_BSD = x_BSD + self.residual_scale * self.attention_post_norm(attended)
        if self.is_moe:
            change, stats, choice_NK = self.ffn(self.ffn_norm(x_BSD), bias_E, choice_NK)
        else:
            change, stats = self.ffn(self.ffn_norm(x_BSD)), None
        return x_BSD + self.residual_scale * self.ffn_post_norm(change), stats, choice_NK


def _attention(config: ModelConfig) -> nn.Module:
    match config.attention:
        case GQAConfig() as gqa:
            return GroupedQueryAttention(gqa, config.dim, config.head_dim, config.norm_eps)
        case MLAConfig() as mla:
            return LatentAttention(mla, config.dim, config.norm_eps)
