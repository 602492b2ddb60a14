"""A gate that starts by keeping nearly all of the old state, for comparison with those that start as the identity."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from mythos.config.loop_parts.gates import GrtGateConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.layers.norm import RMSNorm
from mythos.loop.part import LoopInputs, LoopPart, Rest

INITIAL_BIAS = 4.0
"""sigmoid(4 / temperature) of the old state is kept at the start, 0.98 with temperature 1."""


class GrtGate(LoopPart):
    """h' = g h + (1 - g) y, y = F(h), g = sigmoid(MLP([norm(h); norm(y)]) / temperature), bias +4 at the start.

    The gate of the Gated Recurrent Transformer (arXiv 2608.15062). Of all parts, only this one is *not* the identity at
    the start: a new model keeps 98% of the old state in each loop. It differs from the paper in that the gate has no
    noise in training (the inputs of a part hold neither seed nor step, from which recomputation and a resumed run would
    draw the same numbers), that the hidden layer is narrow, and that its norms are RMS norms.
    """

    def __init__(self, config: GrtGateConfig, model: ModelConfig) -> None:
        super().__init__()
        self.gate = _Blend(config.rank_for(model.dim), config.temperature, model)

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        return self.gate(h_BSD, rest(h_BSD)), carry

    def figures(self) -> dict[str, Tensor]:
        """Return the mean gate where the hidden layer is zero: of the biases alone."""
        return {"bias_gate": (self.gate.up.bias.float() / self.gate.temperature).sigmoid().mean()}

    def gates(self, h_BSD: Tensor, y_BSD: Tensor, carry: Carry, inputs: LoopInputs) -> dict[str, Tensor]:
        """Return g, the share of the old state."""
        return {"keep": self.gate.keep(h_BSD, y_BSD)}


class _Blend(nn.Module):
    """The gate, and the mixture in fp32."""

    def __init__(self, rank: int, temperature: float, model: ModelConfig) -> None:
        super().__init__()
        self.temperature = temperature
        self.norm_h = RMSNorm(model.dim, model.norm_eps)
        self.norm_y = RMSNorm(model.dim, model.norm_eps)
        self.down = nn.Linear(2 * model.dim, rank, bias=False)
        self.up = nn.Linear(rank, model.dim)

    def forward(self, h_BSD: Tensor, y_BSD: Tensor) -> Tensor:
        """Return the new state, ``[B, S, D]``, in the dtype of ``y_BSD``."""
        y = y_BSD.float()
        return (y + self.keep(h_BSD, y_BSD) * (h_BSD.float() - y)).to(y_BSD.dtype)

    def keep(self, h_BSD: Tensor, y_BSD: Tensor) -> Tensor:
        """Return the gate g, ``[B, S, D]`` fp32."""
        both_BSE = torch.cat((self.norm_h(h_BSD), self.norm_y(y_BSD)), dim=-1)
        return (self.up(functional.silu(self.down(both_BSE))).float() / self.temperature).sigmoid()


def initialize_bias(bias_D: Tensor, config: GrtGateConfig, generator: Generator) -> None:
    """Fill in the gate's bias."""
    bias_D.fill_(INITIAL_BIAS)
