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

from mythos.config.model import MoEConfig
from mythos.moe import fused
from mythos.moe.experts import Experts
from mythos.moe.router import Router, Routing
from mythos.parallel.exchange import AsyncAllToAll, exchange, exchange_rows, with_parts
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
            layer.experts.__class__ = ShardedExperts


class ShardedExperts(Experts):
    """Experts of one rank, whose rows are as many as the routing sends there."""

    rows_vary = True


class ExpertParallelMoE(AutoEPMoELayer):
    """``MoE`` whose experts lie on ``ep_size`` ranks.

    With up to as many ranks as a token has choices, nearly every token has an expert on every rank: then tokens travel
    once to all ranks, and each rank sends back the weighted sum over its experts. That moves (ep_size - 1) D numbers
    a token each way, where its visits would move K (ep_size - 1) / ep_size D. With more ranks the visits travel.

    How many rows a rank computes depends on the routing, and is read by the host once in each call.
    """

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self, x_BSD: Tensor, bias_E: Tensor, expert_indices_NK: Tensor | None = None
    ) -> tuple[Tensor, RouterStats, Tensor]:
        """As ``MoE.forward``."""
        run = self._by_tokens if self.ep_size <= self.router.config.num_active else self._by_assignments
        y_ND, routing, stats = run(x_BSD, bias_E, expert_indices_NK)
        return y_ND.view_as(x_BSD), stats, routing.expert_indices_NK.to(torch.int16)

    def _by_tokens(
        self, x_BSD: Tensor, bias_E: Tensor, expert_indices_NK: Tensor | None
    ) -> tuple[Tensor, Routing, RouterStats]:
        """The others' tokens first, so that what is made of them travels back while this rank's own tokens run.

        The routing travels before the tokens, for the host waits for the number of rows that it implies; the tokens
        travel while the shared experts run. The backward goes the same way in reverse.
        """
        x_ND = x_BSD.flatten(0, 1)
        routing, stats = self.router(x_BSD, bias_E, expert_indices_NK)
        counts_RE = stats.counts_E.new_empty(self.ep_size, stats.counts_E.shape[0])
        counting = dist.all_gather_into_tensor(counts_RE.view(-1), stats.counts_E, self.ep_group, async_op=True)
        counts_on_host = _OnHost(counts_RE, counting)
        numbers_NK = routing.expert_indices_NK.to(routing.weight_NK.dtype)  # of experts, which fp32 holds exactly
        packed = torch.cat((routing.weight_NK, numbers_NK), dim=1)
        expert_indices = AsyncAllToAll(exchange(packed, self.ep_group), self.ep_group)
        tokens = AsyncAllToAll(exchange(x_ND, self.ep_group), self.ep_group)
        shared_BSD = None if self.shared_experts is None else self.shared_experts(x_BSD)

        counting.wait()
        rank, num_experts = dist.get_rank(self.ep_group), self.experts.w1.shape[0]
        first = rank * num_experts
        here_RE = counts_RE[:, first : first + num_experts]
        weight_ON, expert_ON = expert_indices.result().chunk(2, dim=1)
        others = fused.sort_local_assignments(expert_ON.long() - first, _ends(here_RE.sum(0) - here_RE[rank]))
        own = fused.sort_local_assignments(routing.expert_indices_NK - first, _ends(here_RE[rank]))
        num_rows_R = counts_on_host.read()[:, first : first + num_experts].sum(1)
        num_own = int(num_rows_R[rank])
        num_others = int(num_rows_R.sum()) - num_own

        weights, copies = self.experts.fused_weights(x_ND.dtype)
        made_ON = fused.from_tokens(tokens.result(), weight_ON, others.first_rows(num_others), weights, copies)
        returned = AsyncAllToAll(made_ON, self.ep_group)
        y_ND = fused.from_tokens(x_ND, routing.weight_NK, own.first_rows(num_own), weights, copies)
        y_ND = with_parts(y_ND, returned.result())
        return (y_ND if shared_BSD is None else y_ND + shared_BSD.flatten(0, 1)), routing, stats

    def _by_assignments(
        self, x_BSD: Tensor, bias_E: Tensor, expert_indices_NK: Tensor | None
    ) -> tuple[Tensor, Routing, RouterStats]:
        """Each visit is a row that travels to its expert's rank and back."""
        routing, stats = self.router(x_BSD, bias_E, expert_indices_NK)
        counts_RE = stats.counts_E.view(self.ep_size, -1)
        received_RE = torch.empty_like(counts_RE)
        dist.all_to_all_single(received_RE, counts_RE, group=self.ep_group)
        num_rows = _OnHost(torch.cat((counts_RE.sum(1), received_RE.sum(1))))
        shared_BSD = None if self.shared_experts is None else self.shared_experts(x_BSD)
        order = fused.sort_assignments(routing.expert_indices_NK, stats.counts_E)
        row_MD = x_BSD.flatten(0, 1)[order.token_M.long()]
        sizes = num_rows.read().tolist()
        sent, received = sizes[: self.ep_size], sizes[self.ep_size :]

        result_MD = exchange_rows(row_MD, sent, received, self.ep_group)
        done_MD = self._run_local_experts(result_MD, received_RE)
        row_MD = exchange_rows(done_MD, received, sent, self.ep_group)

        weighted_MD = row_MD * routing.weight_NK.flatten()[order.assignment_M.long(), None].to(row_MD.dtype)
        y_ND = weighted_MD[order.row_NK.long()].sum(1)
        return (y_ND if shared_BSD is None else y_ND + shared_BSD.flatten(0, 1)), routing, stats

    def _run_local_experts(self, result_MD: Tensor, received_RE: Tensor) -> Tensor:
        """Rows come sorted by source rank, then expert; the experts want them sorted by expert."""
        num_sources, num_experts = received_RE.shape
        expert_M = torch.arange(num_experts, device=result_MD.device).repeat(num_sources)
        expert_M = expert_M.repeat_interleave(received_RE.flatten(), output_size=result_MD.shape[0])
        order_M = expert_M.argsort(stable=True)
        done_MD = self.experts(result_MD[order_M], _ends(received_RE.sum(0)))
        return done_MD[order_M.argsort()]


def _ends(counts_E: Tensor) -> Tensor:
    return counts_E.cumsum(0).to(torch.int32)


class _OnHost:
    """A few numbers on their way to the host, on a stream beside the one that goes on computing."""

    def __init__(self, numbers: Tensor, arrival: dist.Work | None = None) -> None:
        """Begin the copy once ``arrival`` has happened, or all that was queued before."""
        self.numbers, self.source, self.stream = numbers, numbers, None
        if numbers.is_cuda:
            self.numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self.stream = torch.cuda.Stream()
            if arrival is None:
                self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                if arrival is not None:
                    arrival.wait()
                self.numbers.copy_(self.source, non_blocking=True)
        elif arrival is not None:
            arrival.wait()

    def read(self) -> Tensor:
        """Wait for them alone, not for what was queued since."""
        if self.stream is not None:
            self.stream.synchronize()
        return self.numbers
