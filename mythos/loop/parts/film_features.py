"""Scale and shift of the state by features of the loop's index or of its share of all loops."""

import math

import torch
from torch import Tensor, nn

from mythos.config.loop_parts.film_features import FilmFeaturesConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.loop.part import LoopInputs, LoopPart, Rest
from mythos.loop.parts.film import Modulate

LONGEST = 100.0
"""The lowest frequency of ``index`` is somewhat above one radian in so many loops, the highest one radian a loop."""


class FilmFeatures(LoopPart):
    """h' = F((1 + g) h + b), [g; b] = W phi, phi sines and cosines of the loop; W starts at zero: the identity.

    ``index``: phi of t, at frequencies 100^(-i / n). ``fraction``: phi of t / T and of the step 1 / T, at frequencies
    pi (i + 1), as LoopFormer conditions on time and step size (arXiv 2602.11451). T is the number of loops that a
    sequence runs; when tokens exit early, it is the number that they would run without exits, since no token knows its
    exit beforehand. Both are defined for loops that training never ran.
    """

    def __init__(self, config: FilmFeaturesConfig, model: ModelConfig) -> None:
        super().__init__()
        self.rows = _Rows(config, model.dim)
        self.modulate = Modulate()

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        scale, shift = self.rows(_filled(inputs.loop, h_BSD), _filled(inputs.num_loops, h_BSD))
        return rest(self.modulate(h_BSD, scale, shift)), carry

    def figures(self) -> dict[str, Tensor]:
        """Return the root mean squares of the rows of W for scale and shift."""
        scale, shift = self.rows.weight.float().chunk(2)
        return {"scale": scale.square().mean().sqrt(), "shift": shift.square().mean().sqrt()}


class _Rows(nn.Module):
    """Scale and shift of a loop, in fp32."""

    def __init__(self, config: FilmFeaturesConfig, dim: int) -> None:
        super().__init__()
        self.is_fraction = config.features == "fraction"
        self.num_frequencies = config.num_frequencies
        self.weight = nn.Parameter(torch.empty(2 * dim, config.num_features))

    def forward(self, loop: Tensor, num_loops: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift, ``[D]`` or, for indices ``[B]``, ``[B, 1, D]``."""
        index_F = torch.arange(self.num_frequencies, device=loop.device)
        if self.is_fraction:
            values, frequency_F = torch.stack((loop / num_loops, 1 / num_loops), dim=-1), math.pi * (index_F + 1)
        else:
            values, frequency_F = loop[..., None], LONGEST ** (-index_F / self.num_frequencies)
        angles = (values[..., None] * frequency_F).flatten(-2)
        features = torch.cat((angles.sin(), angles.cos(), torch.ones_like(angles[..., :1])), dim=-1)
        both = (self.weight.float() * features[..., None, :]).sum(-1)
        scale, shift = (both if loop.dim() == 0 else both[:, None]).chunk(2, dim=-1)
        return scale, shift


def _filled(number: int | Tensor, like: Tensor) -> Tensor:
    """Return a number as an fp32 tensor, filled on the device without a copy."""
    return number.float() if isinstance(number, Tensor) else like.new_full((), number, dtype=torch.float32)
