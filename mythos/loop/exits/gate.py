"""The gate that computes, from a token's state after a loop, the probability of exiting there."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class HaltingGate(nn.Module):
    """logit(lambda) = w . silu(W norm(h)) + b + logit(initial), in fp32, from the state after a loop."""

    def __init__(self, dim: int, hidden_dim: int, initial_probability: float) -> None:
        super().__init__()
        self.offset = math.log(initial_probability / (1 - initial_probability))
        self.w1 = nn.Parameter(torch.empty(hidden_dim, dim))
        self.w2 = nn.Parameter(torch.empty(1, hidden_dim))
        self.bias = nn.Parameter(torch.empty(1))

    def forward(self, h_BSD: Tensor) -> Tensor:
        """Return the logits of exiting after this loop, ``[B, S]``."""
        with torch.autocast(h_BSD.device.type, enabled=False):
            x_BSD = functional.rms_norm(h_BSD.float(), h_BSD.shape[-1:])
            hidden = functional.silu(functional.linear(x_BSD, self.w1.float()))
            return functional.linear(hidden, self.w2.float(), self.bias.float()).squeeze(-1) + self.offset
