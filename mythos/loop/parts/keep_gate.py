"""An input-dependent gate that keeps part of the old state."""

import torch
from torch import Tensor, nn

from mythos.config.loop_parts.gates import KeepGateConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.layers.norm import RMSNorm
from mythos.loop.part import LoopInputs, LoopPart, Rest


class KeepGate(LoopPart):
    """h' = y + tanh(a) (h - y), y = F(h), a = U V [norm(h); norm(y)] of low rank; U starts at zero: the identity.

    The fixed gate of Block-Recurrent Transformers (Hutchins et al. 2022, arXiv 2203.07852), made to depend on its
    input and to start as y.
    """

    def __init__(self, config: KeepGateConfig, model: ModelConfig) -> None:
        super().__init__()
        self.gate = _Mix(config.rank_for(model.dim), model)

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        return self.gate(h_BSD, rest(h_BSD)), carry

    def figures(self) -> dict[str, Tensor]:
        """Return the root mean square of U, which is zero while the gate is closed."""
        return {"opening": self.gate.up.weight.float().square().mean().sqrt()}

    def gates(self, h_BSD: Tensor, y_BSD: Tensor, carry: Carry, inputs: LoopInputs) -> dict[str, Tensor]:
        """Return tanh(a), the share of the old state."""
        return {"keep": self.gate.keep(h_BSD, y_BSD)}


class _Mix(nn.Module):
    """The gate, and the mixture in fp32."""

    def __init__(self, rank: int, model: ModelConfig) -> None:
        super().__init__()
        self.norm_h = RMSNorm(model.dim, model.norm_eps)
        self.norm_y = RMSNorm(model.dim, model.norm_eps)
        self.down = nn.Linear(2 * model.dim, rank, bias=False)
        self.up = nn.Linear(rank, model.dim, bias=False)

    def forward(self, h_BSD: Tensor, y_BSD: Tensor) -> Tensor:
        """Return the new state, ``[B, S, D]``, in the dtype of ``y_BSD``."""
        y = y_BSD.float()  # written as y plus something times zero, which is y bitwise
        return (y + self.keep(h_BSD, y_BSD) * (h_BSD.float() - y)).to(y_BSD.dtype)

    def keep(self, h_BSD: Tensor, y_BSD: Tensor) -> Tensor:
        """Return tanh(a), ``[B, S, D]`` fp32."""
        both_BSE = torch.cat((self.norm_h(h_BSD), self.norm_y(y_BSD)), dim=-1)
        return self.up(self.down(both_BSE)).float().tanh()
