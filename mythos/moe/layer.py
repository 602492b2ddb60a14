"""The mixture-of-experts layer (DeepSeekMoE, arXiv 2401.06066)."""

import torch
from torch import Tensor, nn

from mythos.config.model import MoEConfig
from mythos.layers.ffn import SwiGLU
from mythos.layers.precision import compute_dtype
from mythos.moe import dispatch
from mythos.moe.experts import Experts
from mythos.moe.router import Router
from mythos.types import RouterStats


class MoE(nn.Module):
    """y = sum over the selected experts of weight_e(x) expert_e(x), plus the shared experts."""

    def __init__(self, config: MoEConfig, dim: int) -> None:
        super().__init__()
        self.router = Router(config, dim)
        self.experts = Experts(config.num_experts, dim, config.hidden_dim)
        self.shared_experts = SwiGLU(dim, config.num_shared * config.hidden_dim) if config.num_shared else None
        self.run_experts = dispatch.grouped if config.dispatch == "grouped" else dispatch.naive

    def forward(
        self,
        x_BSD: Tensor,
        bias_E: Tensor,
        expert_indices_NK: Tensor | None = None,
        router_change: Tensor | None = None,
    ) -> tuple[Tensor, RouterStats, Tensor]:
        """Route tokens and mix the outputs of their experts.

        Args:
            bias_E: this loop's selection bias, or ``[B, E]`` where the sequences are in different loops.
            expert_indices_NK: experts to use, instead of recomputed routing.
            router_change: see ``layers.router_part.RouterPart.change``.

        Returns:
            The output, statistics of the router, and the expert indices as int16.
        """
        x_BSD = x_BSD.to(compute_dtype(x_BSD))  # one cast for both, so that the router reads the input of the experts
        routing, stats = self.router(x_BSD, bias_E, expert_indices_NK, router_change)
        routed_ND = self.run_experts(x_BSD.flatten(0, 1), routing, stats.counts_E, self.experts)
        y_BSD = routed_ND.view_as(x_BSD)
        if self.shared_experts is not None:
            y_BSD = y_BSD + self.shared_experts(x_BSD)
        return y_BSD, stats, routing.expert_indices_NK.to(torch.int16)
