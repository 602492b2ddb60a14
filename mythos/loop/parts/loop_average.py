"""A weighted average over the states of earlier loops."""

from collections.abc import Iterator

from torch import Tensor, nn

from mythos.config.loop_parts.loop_average import LoopAverageConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.loop.part import LoopInputs, LoopPart, Rest
from mythos.loop.slots import Slots, empty_slots, filled, push
from mythos.loop.table import LoopTable


class LoopAverage(LoopPart):
    """h_t+1 = F(u_t), u_t = (1 + a_t,0) h_t + a_t,1 h_t-1 + ... + a_t,n h_t-n, over the loops that have been.

    a is a table over loops that starts at zero: the identity. The carry holds the last n states, which are saved once
    for all loops that read them. DenseFormer (Pagliardini et al. 2024, arXiv 2402.02622) averages over layers in this
    way.
    """

    def __init__(self, config: LoopAverageConfig, model: ModelConfig) -> None:
        super().__init__()
        self.num_slots = config.num_slots
        self.weights = LoopTable(model.max_loops, 1 + config.num_slots)

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> Carry:
        """Return slots for states ``[B, S, D]``."""
        return empty_slots(h_BSD.new_zeros(h_BSD.shape), self.num_slots)

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        u_BSD = _average(h_BSD, filled(carry, inputs.loop), self.weights(inputs))
        return rest(u_BSD), push(carry, h_BSD)

    def leaves(self) -> Iterator[nn.Module]:
        """Yield nothing: the number of filled slots differs from loop to loop, and each would be compiled."""
        yield from ()

    def figures(self) -> dict[str, Tensor]:
        """Return the mean size of the coefficients of earlier states."""
        return {"earlier": self.weights.weight[:, 1:].float().abs().mean()}


def _average(h_BSD: Tensor, earlier: Slots, row: Tensor) -> Tensor:
    """The average in fp32, in the dtype of h.

    Products with an fp32 vector promote a bf16 state and save it as it is, so that a state is saved once.
    """
    of_h, *of_earlier = row.float().split(1, dim=-1)
    u_BSD = h_BSD.float() + of_h * h_BSD
    for weight, state_BSD in zip(of_earlier, earlier, strict=False):
        u_BSD = u_BSD + weight * state_BSD
    return u_BSD.to(h_BSD.dtype)
