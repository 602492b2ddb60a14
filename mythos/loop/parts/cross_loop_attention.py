"""Attention over the keys and values of the loop before, beside a layer's own attention."""

import torch
from torch import Tensor, nn

from mythos.config.loop_parts.attention import CrossLoopAttentionConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Attend, AttentionPart, Carry, LayerInputs
from mythos.layers.mask import Mask
from mythos.layers.precision import compute_dtype


class CrossLoopAttention(AttentionPart):
    """o = attend(q, K, V) + tanh(g_h) attend(q, K_prev, V_prev), with the layer's keys and values of the loop before.

    g has a number for each head and starts at zero: the identity (the gate of Flamingo's cross attention, Alayrac et
    al. 2022). Before the first loop the values are zero, and so is attention over them. In the decoding cache, earlier
    tokens have what the loop before attends to.
    """

    def __init__(self, config: CrossLoopAttentionConfig, model: ModelConfig) -> None:
        super().__init__()
        self.shapes = model.cached_shapes
        self.gate = GatedSum(model.attention.num_heads)

    def start(self, e_BSD: Tensor) -> Carry:
        """See ``AttentionPart``."""
        dtype = compute_dtype(e_BSD)
        return tuple(e_BSD.new_zeros(*e_BSD.shape[:2], *shape, dtype=dtype) for shape in self.shapes)

    def attend_further(self, mixed_BSHP: Tensor, attend: Attend, mask: Mask | None, inputs: LayerInputs) -> Tensor:
        """See ``AttentionPart``."""
        memory = inputs.carry
        if inputs.earlier:
            memory = tuple(torch.cat(both, dim=1) for both in zip(inputs.earlier, memory, strict=True))
        return self.gate(mixed_BSHP, attend(memory, mask))

    def remember(self, written: tuple[Tensor, ...], inputs: LayerInputs) -> Carry:
        """See ``AttentionPart``."""
        return written

    def gates(self) -> Tensor:
        """See ``AttentionPart``."""
        return self.gate.weight.float().tanh()


class GatedSum(nn.Module):
    """x + tanh(g_h) y, in fp32 and in the dtype of x; x plus something times zero is x bitwise."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads))

    def forward(self, x_BSHP: Tensor, y_BSHP: Tensor) -> Tensor:
        """Return the sum, ``[B, S, H, P]``."""
        return (x_BSHP + self.weight.float().tanh()[:, None] * y_BSHP).to(x_BSHP.dtype)
