"""Expert parallelism: the mixture of experts in the form that DeepSpeed's engine can shard.

AutoEP replaces each ``MoE`` by its own layer, gives every rank its share of the experts and marks their parameters,
so that ZeRO reduces them over the right ranks. Its forward supports neither a bias for each loop nor statistics.
Therefore the classes of the converted layer, its router and its experts are replaced by those of this project: same
parameters, same names, and one signature for every ``ep_size``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer
from torch import Tensor, nn

from mythos.config.model import MoEConfig
from mythos.moe import fused
from mythos.moe.experts import Experts
from mythos.moe.router import Router, Routing
from mythos.parallel.exchange import AsyncAllToAll, add_partial_sums, exchange_rows, repeat_for_others
from mythos.parallel.mesh import expert_ranks
from mythos.types import RouterStats

LAYER_PATTERN = r"model\.core\.blocks\.\d+\.ffn"


def conversion(config: MoEConfig, ep_size: int) -> dict[str, Any]:
    """Return the ``expert_parallel`` section of the engine's configuration, with the names of this project."""
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
        "use_grouped_mm": False,  # the engine's expert products are never called
        "load_balance_coeff": None,
    }


def adopt_converted_layers(module: nn.Module, config: MoEConfig) -> None:
    """Replace the forward of every converted layer under ``module``."""
    for layer in module.modules():
        if isinstance(layer, AutoEPMoELayer):
            ranks = dist.get_process_group_ranks(layer.ep_group)
            assert ranks in expert_ranks(dist.get_world_size(), layer.ep_size), f"unexpected expert ranks {ranks}"
            layer.__class__ = ExpertParallelMoE
            layer.router.__class__ = Router
            layer.router.config = config
            layer.experts.__class__ = ShardedExperts


class ShardedExperts(Experts):
    """Experts of one rank, whose number of rows depends on the routing."""

    rows_vary = True


class ExpertParallelMoE(AutoEPMoELayer):
    """``MoE`` whose experts are sharded over ``ep_size`` ranks.

    With at most K ranks, nearly every token is routed to an expert on every rank. Then each token is sent once to all
    ranks, and each rank returns the weighted sum over its experts: (ep_size - 1) D elements a token in each direction,
    where its assignments would need K (ep_size - 1) / ep_size D. With more ranks the assignments are sent.

    The number of rows of a rank depends on the routing, and the host reads it once in each call.
    """

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        x_BSD: Tensor,
        bias_E: Tensor,
        expert_indices_NK: Tensor | None = None,
        router_change: Tensor | None = None,
    ) -> tuple[Tensor, RouterStats, Tensor]:
        """See ``MoE.forward``."""
        run = self._by_tokens if self.ep_size <= self.router.config.num_active else self._by_assignments
        y_ND, routing, stats = run(x_BSD, partial(self.router, x_BSD, bias_E, expert_indices_NK, router_change))
        return y_ND.view_as(x_BSD), stats, routing.expert_indices_NK.to(torch.int16)

    def _by_tokens(
        self, x_BSD: Tensor, route: Callable[[], tuple[Routing, RouterStats]]
    ) -> tuple[Tensor, Routing, RouterStats]:
        """Run the other ranks' tokens first, so that their results are sent while this rank's own tokens run.

        The routing is sent before the tokens, because the host waits for the number of rows; the tokens are sent while
        the shared experts run. The backward runs in the opposite order.
        """
        x_ND = x_BSD.flatten(0, 1)
        routing, stats = route()
        counts_RE = stats.counts_E.new_empty(self.ep_size, stats.counts_E.shape[0])
        counts_gather = dist.all_gather_into_tensor(counts_RE.view(-1), stats.counts_E, self.ep_group, async_op=True)
        counts_on_host = _HostRead(counts_RE, counts_gather)
        index_NK = routing.expert_indices_NK.to(routing.weight_NK.dtype)  # fp32 represents the indices exactly
        packed = torch.cat((routing.weight_NK, index_NK), dim=1)
        routing_of_others = AsyncAllToAll(repeat_for_others(packed, self.ep_group), self.ep_group)
        tokens = AsyncAllToAll(repeat_for_others(x_ND, self.ep_group), self.ep_group)
        shared_BSD = None if self.shared_experts is None else self.shared_experts(x_BSD)

        counts_gather.wait()
        rank, num_experts = dist.get_rank(self.ep_group), self.experts.w1.shape[0]
        first = rank * num_experts
        local_RE = counts_RE[:, first : first + num_experts]
        weight_ON, expert_ON = routing_of_others.result().chunk(2, dim=1)
        others = fused.sort_local_assignments(expert_ON.long() - first, _ends(local_RE.sum(0) - local_RE[rank]))
        own = fused.sort_local_assignments(routing.expert_indices_NK - first, _ends(local_RE[rank]))
        num_rows_R = counts_on_host.read()[:, first : first + num_experts].sum(1)
        num_own = int(num_rows_R[rank])
        num_others = int(num_rows_R.sum()) - num_own

        weights, copies = self.experts.fused_weights(x_ND.dtype)
        result_ON = fused.from_tokens(tokens.result(), weight_ON, others.first_rows(num_others), weights, copies)
        returned = AsyncAllToAll(result_ON, self.ep_group)
        y_ND = fused.from_tokens(x_ND, routing.weight_NK, own.first_rows(num_own), weights, copies)
        y_ND = add_partial_sums(y_ND, returned.result())
        return (y_ND if shared_BSD is None else y_ND + shared_BSD.flatten(0, 1)), routing, stats

    def _by_assignments(
        self, x_BSD: Tensor, route: Callable[[], tuple[Routing, RouterStats]]
    ) -> tuple[Tensor, Routing, RouterStats]:
        """Send each assignment as a row to its expert's rank, and its result back."""
        routing, stats = route()
        counts_RE = stats.counts_E.view(self.ep_size, -1)
        received_RE = torch.empty_like(counts_RE)
        dist.all_to_all_single(received_RE, counts_RE, group=self.ep_group)
        num_rows = _HostRead(torch.cat((counts_RE.sum(1), received_RE.sum(1))))
        shared_BSD = None if self.shared_experts is None else self.shared_experts(x_BSD)
        order = fused.sort_assignments(routing.expert_indices_NK, stats.counts_E)
        row_MD = x_BSD.flatten(0, 1)[order.token_M.long()]
        sizes = num_rows.read().tolist()
        sent, received = sizes[: self.ep_size], sizes[self.ep_size :]

        received_MD = exchange_rows(row_MD, sent, received, self.ep_group)
        result_MD = self._run_local_experts(received_MD, received_RE)
        row_MD = exchange_rows(result_MD, received, sent, self.ep_group)

        weighted_MD = row_MD * routing.weight_NK.flatten()[order.assignment_M.long(), None].to(row_MD.dtype)
        y_ND = weighted_MD[order.row_NK.long()].sum(1)
        return (y_ND if shared_BSD is None else y_ND + shared_BSD.flatten(0, 1)), routing, stats

    def _run_local_experts(self, received_MD: Tensor, received_RE: Tensor) -> Tensor:
        """Run the experts on rows sorted by source rank, then expert, after sorting them by expert alone."""
        num_sources, num_experts = received_RE.shape
        expert_M = torch.arange(num_experts, device=received_MD.device).repeat(num_sources)
        expert_M = expert_M.repeat_interleave(received_RE.flatten(), output_size=received_MD.shape[0])
        order_M = expert_M.argsort(stable=True)
        result_MD = self.experts(received_MD[order_M], _ends(received_RE.sum(0)))
        return result_MD[order_M.argsort()]


def _ends(counts_E: Tensor) -> Tensor:
    return counts_E.cumsum(0).to(torch.int32)


class _HostRead:
    """Asynchronous copy of a small tensor to the host, on a stream of its own."""

    def __init__(self, source: Tensor, pending: dist.Work | None = None) -> None:
        """Start the copy after ``pending`` has completed, or after all work that was queued before."""
        self.value, self.source, self.stream = source, source, None
        if source.is_cuda:
            self.value = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
            self.stream = torch.cuda.Stream()
            if pending is None:
                self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                if pending is not None:
                    pending.wait()
                self.value.copy_(self.source, non_blocking=True)
        elif pending is not None:
            pending.wait()

    def read(self) -> Tensor:
        """Wait for this copy only, and return the values."""
        if self.stream is not None:
            self.stream.synchronize()
        return self.value
