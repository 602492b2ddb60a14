"""A memory of loops with forget, input and output gates, beside the state."""

import torch
from torch import Generator, Tensor, nn

from mythos.config.loop_parts.gates import MemoryGateConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.layers.norm import RMSNorm
from mythos.loop.part import LoopInputs, LoopPart, Rest

FORGET_BIAS = 1.0
"""Of the forget gate at the start; the input gate has its negative, so that both add up to one."""


class MemoryGate(LoopPart):
    """c' = f c + i y, h' = y + tanh(a) (o c' - y), with y = F(h) and a cell c that starts as h_0, in fp32.

    f, i = sigmoid(z), o = 2 sigmoid(z), z of low rank from [norm(h); e; norm(y)], as in an LSTM (Hochreiter and
    Schmidhuber 1997; forget gate of Gers et al. 2000). f is at most 1, so that the memory never grows by itself. a is
    a vector that starts at zero: the identity.
    """

    def __init__(self, config: MemoryGateConfig, model: ModelConfig) -> None:
        super().__init__()
        self.cell = _Cell(config.rank_for(model.dim), model)

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> Carry:
        """Return the cell before the first loop, ``[B, S, D]`` fp32."""
        return h_BSD.float()

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        return self.cell(h_BSD, inputs.e_BSD, rest(h_BSD), carry)

    def figures(self) -> dict[str, Tensor]:
        """Return the mean size of tanh(a), the share of the memory in the state."""
        return {"opening": self.cell.opening.float().tanh().abs().mean()}

    def gates(self, h_BSD: Tensor, y_BSD: Tensor, carry: Carry, inputs: LoopInputs) -> dict[str, Tensor]:
        """Return f, i, and half of o, so that all are between 0 and 1."""
        values = self.cell.sigmoids(h_BSD, inputs.e_BSD, y_BSD)
        return dict(zip(("forget", "write", "half_read"), values, strict=True))


class _Cell(nn.Module):
    """Gates and memory, in fp32."""

    def __init__(self, rank: int, model: ModelConfig) -> None:
        super().__init__()
        self.norm_h = RMSNorm(model.dim, model.norm_eps)
        self.norm_y = RMSNorm(model.dim, model.norm_eps)
        self.down = nn.Linear(3 * model.dim, rank, bias=False)
        self.up = nn.Linear(rank, 3 * model.dim)
        self.opening = nn.Parameter(torch.empty(model.dim))

    def forward(self, h_BSD: Tensor, e_BSD: Tensor, y_BSD: Tensor, cell_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new state in the dtype of ``y_BSD`` and the new cell, ``[B, S, D]`` each."""
        forget_BSD, write_BSD, read_BSD = self.sigmoids(h_BSD, e_BSD, y_BSD)
        y = y_BSD.float()
        cell_BSD = forget_BSD * cell_BSD + write_BSD * y
        return (y + self.opening.float().tanh() * (2 * read_BSD * cell_BSD - y)).to(y_BSD.dtype), cell_BSD

    def sigmoids(self, h_BSD: Tensor, e_BSD: Tensor, y_BSD: Tensor) -> tuple[Tensor, ...]:
        """Return f, i and half of o, ``[B, S, D]`` fp32 each."""
        normed = (self.norm_h(h_BSD), e_BSD, self.norm_y(y_BSD))
        z_BSE = self.up(self.down(torch.cat([each.to(y_BSD.dtype) for each in normed], dim=-1)))
        return z_BSE.float().sigmoid().chunk(3, dim=-1)


def initialize_bias(bias_E: Tensor, config: MemoryGateConfig, generator: Generator) -> None:
    """Fill in the biases of forget, input and output gate."""
    for bias_D, value in zip(bias_E.chunk(3), (FORGET_BIAS, -FORGET_BIAS, 0.0), strict=True):
        bias_D.fill_(value)
