"""From the coda's output to logits and loss."""

from torch import Tensor, nn

from mythos.config.model import ModelConfig
from mythos.layers.cross_entropy import linear_cross_entropy, project
from mythos.layers.norm import RMSNorm


class Head(nn.Module):
    """Final norm and projection; the projection is the embedding's weight unless untied."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.projection = None if config.head.tied else nn.Linear(config.dim, config.vocab_size, bias=False)
        self.soft_cap = config.head.soft_cap
        self.chunk_tokens = config.head.chunk_tokens

    def forward(
        self, x_BSD: Tensor, embedding_VD: Tensor, target_BS: Tensor, is_one_of_many: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the negative log-likelihood of the targets and log-partition, ``[B, S]`` each, in nats."""
        x_ND = self.norm(x_BSD).flatten(0, 1)
        weight_VD = self._weight(embedding_VD)
        nll_N, lse_N = linear_cross_entropy(
            x_ND, weight_VD, target_BS.flatten(), self.soft_cap, self.chunk_tokens, is_one_of_many
        )
        return nll_N.view_as(target_BS), lse_N.view_as(target_BS)

    def logits(self, x_BSD: Tensor, embedding_VD: Tensor) -> Tensor:
        """Return logits ``[B, S, V]``, fp32."""
        return project(self.norm(x_BSD), self._weight(embedding_VD), self.soft_cap)

    def _weight(self, embedding_VD: Tensor) -> Tensor:
        return embedding_VD if self.projection is None else self.projection.weight
