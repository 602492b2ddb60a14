"""Experts spread over ranks: our mixture of experts in the shape that DeepSpeed's engine knows how to shard.

AutoEP replaces each ``MoE`` by its own layer, gives every rank its share of the experts and marks their parameters,
so that ZeRO reduces them over the right ranks. Its forward knows neither a bias for each loop nor statistics. So the
classes of the converted layer, its router and its experts are swapped for ours: same parameters, same names, and one
signature at every ``ep_size``.
"""

from typing import Any

import torch
import torch.distributed as dist
from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer
from torch import Tensor, nn
from torch.autograd import Function

from mythos.config.model import MoEConfig
from mythos.moe.experts import Experts
from mythos.moe.router import Router
from mythos.parallel.mesh import expert_ranks
from mythos.types import RouterStats

LAYER_PATTERN = r"model\.core\.blocks\.\d+\.ffn"


def conversion(config: MoEConfig, ep_size: int) -> dict[str, Any]:
    """The ``expert_parallel`` section of the engine's configuration, in terms of our names."""
    return {
        "enabled": True,
        "autoep_size": ep_size,
        "moe_layer_pattern": LAYER_PATTERN,
        "router_pattern": "router",
        "expert_pattern": "experts",
        "expert_w1": "w1",
        "expert_w2": "w2",
        "expert_w3": "w3",
        "top_k": config.num_active,
        "score_func": config.score,
        "score_apply": "post",
        "route_norm": config.normalize_weights,
        "has_shared_experts": config.num_shared > 0,
        "shared_experts_pattern": "shared_experts",
        "use_grouped_mm": False,  # its expert products are never called
        "load_balance_coeff": None,
    }


def adopt_converted_layers(module: nn.Module, config: MoEConfig) -> None:
    """Give every converted layer under ``module`` our forward."""
    for layer in module.modules():
        if isinstance(layer, AutoEPMoELayer):
            ranks = dist.get_process_group_ranks(layer.ep_group)
            assert ranks in expert_ranks(dist.get_world_size(), layer.ep_size), f"unexpected expert ranks {ranks}"
            layer.__class__ = ExpertParallelMoE
            layer.router.__class__ = Router
            layer.router.config = config
            layer.experts.__class__ = Experts


class ExpertParallelMoE(AutoEPMoELayer):
    """``MoE`` whose experts lie on ``ep_size`` ranks: each row travels to its expert's rank and back.

    The rows that a rank receives depend on the routing, so their number is read by the host once in each call.
    """

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self, x_BSD: Tensor, bias_E: Tensor, choice_NK: Tensor | None = None
    ) -> tuple[Tensor, RouterStats, Tensor]:
        """As ``MoE.forward``."""
        routing, stats = self.router(x_BSD, bias_E, choice_NK)
        num_tokens, num_active = routing.expert_NK.shape
        order_M = routing.expert_NK.flatten().argsort(stable=True)
        row_MD = x_BSD.flatten(0, 1)[order_M // num_active]

        counts_RE, received_RE = self._exchange_counts(stats.counts_E)
        sent, received = torch.stack((counts_RE.sum(1), received_RE.sum(1))).tolist()
        arrived_MD = _AllToAll.apply(row_MD, sent, received, self.ep_group)
        done_MD = self._run_local_experts(arrived_MD, received_RE)
        row_MD = _AllToAll.apply(done_MD, received, sent, self.ep_group)

        visit_MD = torch.empty_like(row_MD).index_copy(0, order_M, row_MD)
        visit_NKD = visit_MD.view(num_tokens, num_active, -1)
        y_ND = torch.einsum("nkd,nk->nd", visit_NKD, routing.weight_NK.to(visit_NKD.dtype))
        y_BSD = y_ND.view_as(x_BSD)
        if self.shared_experts is not None:
            y_BSD = y_BSD + self.shared_experts(x_BSD)
        return y_BSD, stats, routing.expert_NK.to(torch.int16)

    def _exchange_counts(self, counts_E: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that this rank sends to, and receives from, each rank's experts: ``[ep_size, local experts]``."""
        counts_RE = counts_E.view(self.ep_size, -1)
        received_RE = torch.empty_like(counts_RE)
        dist.all_to_all_single(received_RE, counts_RE, group=self.ep_group)
        return counts_RE, received_RE

    def _run_local_experts(self, arrived_MD: Tensor, received_RE: Tensor) -> Tensor:
        """Rows come sorted by source rank, then expert; the experts want them sorted by expert."""
        num_sources, num_experts = received_RE.shape
        expert_M = torch.arange(num_experts, device=arrived_MD.device).repeat(num_sources)
        expert_M = expert_M.repeat_interleave(received_RE.flatten(), output_size=arrived_MD.shape[0])
        order_M = expert_M.argsort(stable=True)
        end_E = received_RE.sum(0).cumsum(0).to(torch.int32)
        done_MD = self.experts(arrived_MD[order_M], end_E)
        return torch.empty_like(done_MD).index_copy(0, order_M, done_MD)


class _AllToAll(Function):
    """Rows to their ranks; the gradient goes the way back."""

    @staticmethod
    def forward(ctx: Any, row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _exchange(row_MD, sent, received, group)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchange(grad_MD, ctx.received, ctx.sent, ctx.group), None, None, None


def _exchange(row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    arrived_MD = row_MD.new_empty(sum(received), row_MD.shape[1])
    dist.all_to_all_single(arrived_MD, row_MD.contiguous(), received, sent, group=group)
    return arrived_MD
