"""The SwiGLU feed-forward layer (Shazeer 2020, arXiv 2002.05202)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mythos.layers import swiglu
from mythos.layers.precision import compute_dtype
from mythos.layers.projection import Projection
from mythos.layers.shared import GradientAccumulators, can_accumulate
from mythos.layers.swiglu import SharedSwiGLU, SwiGLUWeightCopies


class SwiGLU(nn.Module):
    """y = W_2 (silu(W_1 x) * W_3 x)."""

    shared: SharedSwiGLU | None = None

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = Projection(dim, hidden_dim)
        self.w2 = Projection(hidden_dim, dim)
        self.w3 = Projection(dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., dim]`` to ``[..., dim]``."""
        if self.is_shared_in(compute_dtype(x)):
            return self._shared_layer(x)
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))

    def is_shared_in(self, dtype: torch.dtype) -> bool:
        """Whether there are weight copies in ``dtype`` for the layer as a whole."""
        return self.shared is not None and self.shared.weight_copies.w2_DF.dtype == dtype

    def _shared_layer(self, x: Tensor) -> Tensor:
        assert self.shared is not None
        return swiglu.apply(x, self.shared)

    def share(self, dtype: torch.dtype) -> None:
        """See ``Sharing``; the layer is shared as one operation where that is faster, else each product by itself."""
        w1_FD, w2_DF, w3_FD = weights = self.w1.weight, self.w2.weight, self.w3.weight
        if swiglu.is_available(w2_DF, dtype) and all(can_accumulate(weight, dtype) for weight in weights):
            if self.shared is None:
                weight_copies = SwiGLUWeightCopies.of(w1_FD, w2_DF, w3_FD, dtype)
            else:
                weight_copies = self.shared.weight_copies
                self.shared.accumulators13.restore()
            self.shared = SharedSwiGLU(
                weight_copies, GradientAccumulators.interleaved(w1_FD, w3_FD), GradientAccumulators.of(w2_DF)
            )
        else:
            self.share_products(dtype)

    def share_products(self, dtype: torch.dtype) -> None:
        """Share each product by itself."""
        for part in (self.w1, self.w2, self.w3):
            part.share(dtype)

    def unshare(self) -> None:
        """See ``Sharing``."""
        if self.shared is not None:
            self.shared.accumulators13.restore()
            del self.shared  # compiled code guards on whether the instance or the class holds it
        for part in (self.w1, self.w2, self.w3):
            part.unshare()
