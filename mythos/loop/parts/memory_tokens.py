"""Learned registers that are carried from loop to loop, and that the text reads in every layer of the core."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mythos.config.loop_parts.memory_tokens import MemoryTokensConfig
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import Attend, AttentionPart, Carry, LayerInputs
from mythos.layers.mask import UNMASKED, Mask, attend
from mythos.layers.norm import RMSNorm
from mythos.loop.part import LoopInputs, LoopPart, Rest
from mythos.loop.parts.cross_loop_attention import GatedSum


class MemoryTokens(LoopPart):
    """h' = F(h, m'), m' = m + W_o attend(W_q n, W_k n, W_v n) with n = norm(m): M registers.

    They start as learned vectors, attend to themselves only, contain no text and have no position, so that all
    documents of a window and all sequences share them; they depend on the index of the loop alone. F reads them in the
    attention of each core layer (``MemoryReading``). The carry is what they differ from the learned vectors by, so that
    these learn in every loop with gradients. F reads m' and not m so that the update learns in a single loop as well:
    an optimiser would skip weights without gradients, and an engine would give them gradients of zero.

    Memory tokens in front of the window are from Darcet et al. 2024 (registers) and, over loops, arXiv 2604.21999.
    """

    def __init__(self, config: MemoryTokensConfig, model: ModelConfig) -> None:
        super().__init__()
        self.num_tokens = config.num_tokens
        self.tokens = _Tokens(config.num_tokens, model.dim)
        self.update = _Update(config, model)

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> Carry:
        """Return zeros ``[B, M, D]``."""
        return h_BSD.new_zeros(h_BSD.shape[0], self.num_tokens, h_BSD.shape[-1])

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """See ``LoopPart``."""
        return rest(h_BSD), carry + self.update(self.tokens(carry))

    def for_blocks(self, carry: Carry) -> Carry:
        """Return m', ``[B, M, D]``; it is computed once more in ``forward``, which costs little."""
        m_BMD = self.tokens(carry)
        return m_BMD + self.update(m_BMD)

    def freeze(self, exited_BS: Tensor, old: Carry, new: Carry) -> Carry:
        """Return the new registers: they are no tokens and do not exit."""
        return new

    def leaves(self) -> Iterator[nn.Module]:
        """Yield the update."""
        yield self.update


class MemoryReading(AttentionPart):
    """o = attend(q, K, V) + tanh(g_h) attend(q, K(m), V(m)), with the layer's own projections of the normed registers.

    Every token reads every register: there is no mask, and the keys are not rotated. g has a number for each head and
    starts at zero: the identity.
    """

    attends_to_tokens = False

    def __init__(self, config: MemoryTokensConfig, model: ModelConfig) -> None:
        super().__init__()
        self.norm_m = RMSNorm(model.dim, model.norm_eps)
        self.gate = GatedSum(model.attention.num_heads)

    def attend_further(self, mixed_BSHP: Tensor, attend: Attend, mask: Mask | None, inputs: LayerInputs) -> Tensor:
        """See ``AttentionPart``."""
        memory = inputs.unplaced(self.norm_m(inputs.loop_carry))
        return self.gate(mixed_BSHP, attend(memory, UNMASKED))

    def gates(self) -> Tensor:
        """See ``AttentionPart``."""
        return self.gate.weight.float().tanh()


class _Tokens(nn.Module):
    """The learned vectors, and how far the registers are from them."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_tokens, dim))

    def forward(self, change_BMD: Tensor) -> Tensor:
        """Return the registers, ``[B, M, D]``."""
        return self.weight.to(change_BMD.dtype) + change_BMD


class _Update(nn.Module):
    """W_o attend(W_q n, W_k n, W_v n), n = norm(m)."""

    def __init__(self, config: MemoryTokensConfig, model: ModelConfig) -> None:
        super().__init__()
        self.shape = (3, config.num_heads, config.head_dim)
        self.norm_m = RMSNorm(model.dim, model.norm_eps)
        self.heads = nn.Linear(model.dim, 3 * config.width, bias=False)
        self.up = nn.Linear(config.width, model.dim, bias=False)

    def forward(self, m_BMD: Tensor) -> Tensor:
        """Return the change of the registers, ``[B, M, D]``."""
        heads_BHMP = self.heads(self.norm_m(m_BMD)).unflatten(-1, self.shape).permute(2, 0, 3, 1, 4)
        query_BHMP, key_BHMP, value_BHMP = heads_BHMP.unbind(0)
        read_BHMP = attend(query_BHMP, key_BHMP, value_BHMP, UNMASKED)
        return self.up(read_BHMP.transpose(1, 2).flatten(2)).to(m_BMD.dtype)
