"""Scale and shift of the state by loop index (FiLM, Perez et al. 2018, arXiv 1709.07871)."""

from collections.abc import Iterator

from torch import Tensor, nn

from mythos.config.loop_parts.film import FilmConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.loop.part import LoopInputs, LoopPart, Rest
from mythos.loop.table import LoopTable


class Film(LoopPart):
    """h' = F((1 + g_t) h + b_t), g and b tables over loops that start at zero: the identity."""

    def __init__(self, config: FilmConfig, model: ModelConfig) -> None:
        super().__init__()
        self.scale = LoopTable(model.max_loops, model.dim)
        self.shift = LoopTable(model.max_loops, model.dim)
        self.modulate = Modulate()

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        return rest(self.modulate(h_BSD, self.scale(inputs), self.shift(inputs))), carry

    def leaves(self) -> Iterator[nn.Module]:
        """Yield the elementwise part; a table is indexed by a number, so that compilation would specialise on it."""
        yield self.modulate

    def figures(self) -> dict[str, Tensor]:
        """Return the root mean squares of both tables."""
        return {"scale": _rms(self.scale.weight), "shift": _rms(self.shift.weight)}


class Modulate(nn.Module):
    """(1 + g) h + b, in fp32 and in the dtype of h."""

    def forward(self, h_BSD: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the modulated state, ``[B, S, D]``."""
        return ((1 + scale.float()) * h_BSD.float() + shift.float()).to(h_BSD.dtype)


def _rms(weight: Tensor) -> Tensor:
    return weight.float().square().mean().sqrt()
