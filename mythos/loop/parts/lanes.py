"""Two residual lanes: hyper-connections around a loop."""

from collections.abc import Iterator

from torch import Tensor, nn

from mythos.config.loop_parts.lanes import LanesConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.loop.part import LoopInputs, LoopPart, Rest
from mythos.loop.table import LoopTable


class Lanes(LoopPart):
    """u = h + d with d = r0 h + r1 k, y = F(u), and [h'; k'] = M [h; k] + [1 + w0; w1] (y - u).

    M = [[1 - a, a], [a, 1 - a]] is doubly stochastic, since a lies in [0, 1]. Lane h is the state, which the injection
    and the coda read; lane k is the carry and starts as e. r, a and w are tables over loops that start at zero, and the
    first row of the update is computed as h' = y - d + a (k - h) + w0 (y - u): the identity, bitwise. Nothing reads
    lane k at the start, so that w1 has its first gradient in the second step; all others have one in the first.

    Hyper-connections (Zhu et al. 2024) with static coefficients; the mix for two lanes is that of mHC-lite
    (arXiv 2601.05732), but it starts as the identity, which a sigmoid cannot reach.
    """

    def __init__(self, config: LanesConfig, model: ModelConfig) -> None:
        super().__init__()
        self.read = LoopTable(model.max_loops, 2)
        self.mix = LoopTable(model.max_loops, 1)
        self.write = LoopTable(model.max_loops, 2)
        self.join = Join()
        self.update = Update()

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> Carry:
        """Return lane k before the first loop, ``[B, S, D]``."""
        return e_BSD.to(h_BSD.dtype)

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        read, mix, write = self.read(inputs), self.mix(inputs), self.write(inputs)
        u_BSD = self.join(h_BSD, carry, read)
        return self.update(h_BSD, carry, u_BSD, rest(u_BSD), read, mix, write)

    def leaves(self) -> Iterator[nn.Module]:
        """Yield the elementwise modules; tables are indexed by a number, on which compilation would specialise."""
        yield self.join
        yield self.update

    def figures(self) -> dict[str, Tensor]:
        """Return the means of a and of the sizes of r1 and w1, the shares of lane k in the state."""
        return {
            "read": self.read.weight[:, 1].float().abs().mean(),
            "mix": unit_interval(self.mix.weight).mean(),
            "write": self.write.weight[:, 1].float().abs().mean(),
        }


class Join(nn.Module):
    """h + r0 h + r1 k, in fp32 and in the dtype of h."""

    def forward(self, h_BSD: Tensor, k_BSD: Tensor, read: Tensor) -> Tensor:
        """Return the input of the rest of the loop, ``[B, S, D]``."""
        return (h_BSD.float() + _read_from(h_BSD, k_BSD, read)).to(h_BSD.dtype)


class Update(nn.Module):
    """Both lanes after the loop, in fp32 and in their dtypes."""

    def forward(
        self, h_BSD: Tensor, k_BSD: Tensor, u_BSD: Tensor, y_BSD: Tensor, read: Tensor, mix: Tensor, write: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return h' and k', ``[B, S, D]`` each."""
        h, k, y = h_BSD.float(), k_BSD.float(), y_BSD.float()
        change_BSD, exchanged_BSD = y - u_BSD.float(), unit_interval(mix) * (k - h)
        to_h, to_k = write.float().chunk(2, dim=-1)
        new_h_BSD = y - _read_from(h_BSD, k_BSD, read) + exchanged_BSD + to_h * change_BSD
        new_k_BSD = k - exchanged_BSD + to_k * change_BSD
        return new_h_BSD.to(y_BSD.dtype), new_k_BSD.to(k_BSD.dtype)


def unit_interval(weight: Tensor) -> Tensor:
    """Return the weight clamped to [0, 1], fp32, with the gradient of the weight itself, so that it can return."""
    weight = weight.float()
    return weight.detach().clamp(0, 1) + (weight - weight.detach())


def _read_from(h_BSD: Tensor, k_BSD: Tensor, read: Tensor) -> Tensor:
    """r0 h + r1 k, in fp32; products with an fp32 vector promote a bf16 lane and save it as it is."""
    of_h, of_k = read.float().chunk(2, dim=-1)
    return of_h * h_BSD + of_k * k_BSD
