"""One transformer layer."""

from torch import Tensor, nn

from mythos.config.model import FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.cache import LayerCache
from mythos.layers.ffn import SwiGLU
from mythos.layers.mla import LatentAttention
from mythos.layers.norm import RMSNorm
from mythos.layers.rope import Rotation
from mythos.moe.layer import MoE
from mythos.types import RouterStats


class Block(nn.Module):
    """x = x + attention(norm(x)); x = x + ffn(norm(x)). ``sandwich`` also normalises what is added."""

    def __init__(self, config: ModelConfig, ffn: FeedForwardConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = _attention(config)
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
        mask: Tensor | None,
        bias_E: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Tensor, RouterStats | None]:
        """One layer; ``bias_E`` is the selection bias of a mixture of experts, None for a dense layer."""
        attended = self.attention(self.attention_norm(x_BSD), rotation, mask, cache)
        x_BSD = x_BSD + self.attention_post_norm(attended)
        if isinstance(self.ffn, MoE):
            change, stats = self.ffn(self.ffn_norm(x_BSD), bias_E)
        else:
            change, stats = self.ffn(self.ffn_norm(x_BSD)), None
        return x_BSD + self.ffn_post_norm(change), stats


def _attention(config: ModelConfig) -> nn.Module:
    match config.attention:
        case GQAConfig() as gqa:
            return GroupedQueryAttention(gqa, config.dim, config.head_dim, config.norm_eps)
        case MLAConfig() as mla:
            return LatentAttention(mla, config.dim, config.norm_eps)
