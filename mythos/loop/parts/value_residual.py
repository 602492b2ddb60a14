"""Values of the first loop in those of every loop."""

import torch
from torch import Tensor, nn

from mythos.config.loop_parts.attention import ValueResidualConfig, num_value_heads
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import AttentionPart, Carry, LayerInputs
from mythos.layers.precision import compute_dtype


class ValueResidual(AttentionPart):
    """V' = V + g_h (V_first - V), with the layer's own values of the first loop.

    ResFormer (arXiv 2410.17897) does so over layers. g has a number for each key-value head and starts at zero: the
    identity. MLA computes keys and values from one latent, which is mixed in their place with one number, so that keys
    change as well.
    """

    def __init__(self, config: ValueResidualConfig, model: ModelConfig) -> None:
        super().__init__()
        is_latent = model.attention.kind == "mla"
        self.head = 1 if is_latent else 2
        """Index of the values among ``heads``, the next one among what is written."""
        self.written = 0 if is_latent else 1
        self.shape = model.cached_shapes[self.written]
        self.mix = Mix(num_value_heads(model))

    def start(self, e_BSD: Tensor) -> Carry:
        """See ``AttentionPart``."""
        return e_BSD.new_zeros(*e_BSD.shape[:2], *self.shape, dtype=compute_dtype(e_BSD))

    def project(self, x_BSD: Tensor, heads: tuple[Tensor, ...], inputs: LayerInputs) -> tuple[Tensor, ...]:
        """See ``AttentionPart``."""
        value = heads[self.head]
        mixed = self.mix(value, first_value(value, inputs))
        return (*heads[: self.head], mixed, *heads[self.head + 1 :])

    def remember(self, written: tuple[Tensor, ...], inputs: LayerInputs) -> Carry:
        """See ``AttentionPart``; in the first loop V' is V."""
        return first_value(written[self.written], inputs)

    def gates(self) -> Tensor:
        """See ``AttentionPart``."""
        return self.mix.weight.float()


class Mix(nn.Module):
    """v + g (first - v), in fp32 and in the dtype of v; v plus something times zero is v bitwise."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads))

    def forward(self, value: Tensor, first: Tensor) -> Tensor:
        """Return the mixed values ``[B, S, G, P]``, or latents ``[B, S, R]``."""
        return (value + self.weight.float()[:, None] * (first - value)).to(value.dtype)


def first_value(value: Tensor, inputs: LayerInputs) -> Tensor:
    """Return the values of the first loop: those of this loop, or the carry."""
    assert inputs.loop is not None, "only layers of the core have a first loop"
    return torch.where((inputs.loop == 0).view(-1, *[1] * (value.dim() - 1)), value, inputs.carry)
