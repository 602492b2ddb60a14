"""Attention of each token to its own states of earlier loops."""

import torch
from torch import Tensor, nn

from mythos.config.loop_parts.depth_attention import DepthAttentionConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Carry
from mythos.layers.norm import RMSNorm
from mythos.layers.precision import compute_dtype
from mythos.loop.part import LoopInputs, LoopPart, Rest
from mythos.loop.parts.slot_attention import attend_to_slots
from mythos.loop.slots import empty_slots, filled, push


class DepthAttention(LoopPart):
    """h_t+1 = F(h_t + tanh(g) W o), o = sum over s < t of softmax(q_t k_s / sqrt(P)) v_s, for each token and head.

    q, k and v are projections of norm(h) of the part's own; the carry holds keys and values of the last loops, which a
    loop writes once. In the first loop o is zero. g is a vector that starts at zero: the identity.

    Attention over depth is that of MoDA (arXiv 2603.15619), here over loops, with a gate outside the softmax.
    """

    def __init__(self, config: DepthAttentionConfig, model: ModelConfig) -> None:
        super().__init__()
        self.num_slots = config.num_slots
        self.shape = (2, config.num_heads, config.head_dim)
        self.project = _Project(config, model)
        self.write = _Write(config, model)

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> Carry:
        """Return slots for keys and values, ``[B, S, 2, H, P]``."""
        zeros = h_BSD.new_zeros(*h_BSD.shape[:2], *self.shape, dtype=compute_dtype(h_BSD))
        return empty_slots(zeros, self.num_slots)

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        query_BSHP, own_BSMHP = self.project(h_BSD)
        # The loop's own keys are masked: they let every weight take part in every step, whatever loops have gradients.
        slots = (own_BSMHP, *filled(carry, inputs.loop))
        age_N111 = torch.arange(len(slots), device=h_BSD.device).view(-1, 1, 1, 1)
        loop = inputs.loop if isinstance(inputs.loop, int) else inputs.loop.view(-1, 1, 1)
        read_BSHP = attend_to_slots(query_BSHP, (age_N111 > 0) & (age_N111 <= loop), slots)
        return rest(self.write(h_BSD, read_BSHP)), push(carry, own_BSMHP)

    def figures(self) -> dict[str, Tensor]:
        """Return the mean size of tanh(g)."""
        return {"opening": self.write.opening.float().tanh().abs().mean()}


class _Project(nn.Module):
    """Query, and key and value side by side, from the normed state."""

    def __init__(self, config: DepthAttentionConfig, model: ModelConfig) -> None:
        super().__init__()
        self.shape = (config.num_heads, config.head_dim)
        self.norm_h = RMSNorm(model.dim, model.norm_eps)
        self.query = nn.Linear(model.dim, config.width, bias=False)
        self.memory = nn.Linear(model.dim, 2 * config.width, bias=False)

    def forward(self, h_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the query ``[B, S, H, P]`` and the loop's slot ``[B, S, 2, H, P]``."""
        normed_BSD = self.norm_h(h_BSD)
        return self.query(normed_BSD).unflatten(-1, self.shape), self.memory(normed_BSD).unflatten(-1, (2, *self.shape))


class _Write(nn.Module):
    """h + tanh(g) W o, with the sum in fp32."""

    def __init__(self, config: DepthAttentionConfig, model: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, model.dim, bias=False)
        self.opening = nn.Parameter(torch.empty(model.dim))

    def forward(self, h_BSD: Tensor, read_BSHP: Tensor) -> Tensor:
        """Return the input of the rest of the loop, ``[B, S, D]``, in the dtype of ``h_BSD``."""
        return (h_BSD.float() + self.opening.float().tanh() * self.up(read_BSHP.flatten(2))).to(h_BSD.dtype)
