"""The SwiGLU feed-forward layer (Shazeer 2020, arXiv 2002.05202)."""

from torch import Tensor, nn
from torch.nn import functional

from mythos.layers.projection import Projection


class SwiGLU(nn.Module):
    """y = W_2 (silu(W_1 x) * W_3 x)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = Projection(dim, hidden_dim)
        self.w2 = Projection(hidden_dim, dim)
        self.w3 = Projection(dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., dim]`` to ``[..., dim]``."""
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))
