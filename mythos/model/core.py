"""The recurrent core: a few blocks, passed T times over one state."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mythos.config.model import ModelConfig
from mythos.layers.cache import LayerCache
from mythos.layers.norm import RMSNorm
from mythos.layers.rope import Rotation
from mythos.loop.injection import build_injection
from mythos.model.block import Block
from mythos.types import LoopTrace, RouterStats

T = TypeVar("T", RouterStats, LoopTrace)


class CoreOutput(NamedTuple):
    """States where the caller asked for an exit, the last state, and what was seen on the way."""

    exit_states: list[Tensor]
    state_BSD: Tensor
    router_stats: RouterStats | None
    trace: LoopTrace | None


class Core(nn.Module):
    """h_{t+1} = u + R(u) or u + R(norm(h_t + e)), with u = inject(h_t, e) and R the blocks' residual change."""

    router_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.injection = build_injection(config.injection, config.dim)
        self.is_parallel = config.injection.spelling == "parallel"
        self.parallel_norm = RMSNorm(config.dim, config.norm_eps) if self.is_parallel else None
        self.blocks = nn.ModuleList(Block(config, config.core_ffn) for _ in range(config.num_core_layers))
        self.max_loops = config.max_loops
        num_experts = config.core_ffn.num_experts if config.core_ffn.kind == "moe" else 0
        shape = (config.num_core_layers, config.max_loops, num_experts)
        self.register_buffer("router_bias", torch.zeros(shape))

    def forward(
        self,
        h_BSD: Tensor,
        e_BSD: Tensor,
        rotation: Rotation,
        mask: Tensor | None,
        num_loops: int,
        num_grad_loops: int,
        exits: tuple[int, ...],
        trace: bool = False,
        caches: list[list[LayerCache]] | None = None,
    ) -> CoreOutput:
        """Run ``num_loops`` passes, the last ``num_grad_loops`` of them with gradients.

        Args:
            h_BSD: the state before the first pass.
            e_BSD: the prelude's output, injected at every pass.
            exits: 0-based passes whose states are wanted.
        """
        exit_states, stats, traces = [], [], []
        for loop in range(num_loops):
            has_grad = torch.is_grad_enabled() and loop >= num_loops - num_grad_loops
            with torch.set_grad_enabled(has_grad):
                cache = None if caches is None else caches[loop]
                new_BSD, loop_stats = self.step(h_BSD, e_BSD, rotation, mask, loop, cache)
            if trace:
                traces.append(_observe(new_BSD, h_BSD))
            h_BSD = new_BSD
            stats.append(loop_stats)
            if loop in exits:
                exit_states.append(h_BSD)
        return CoreOutput(exit_states, h_BSD, _stack_loops(stats), _stack(LoopTrace, traces) if trace else None)

    def step(
        self,
        h_BSD: Tensor,
        e_BSD: Tensor,
        rotation: Rotation,
        mask: Tensor | None,
        loop: int,
        caches: list[LayerCache] | None = None,
    ) -> tuple[Tensor, list[RouterStats]]:
        """One pass: the next state and what each block's router saw."""
        row = min(loop, self.max_loops - 1)
        u_BSD = self.injection(h_BSD, e_BSD)
        start_BSD = u_BSD if self.parallel_norm is None else self.parallel_norm(h_BSD + e_BSD)
        x_BSD, stats = start_BSD, []
        for layer, block in enumerate(self.blocks):
            cache = None if caches is None else caches[layer]
            x_BSD, block_stats = block(x_BSD, rotation, mask, self.router_bias[layer, row], cache)
            if block_stats is not None:
                stats.append(block_stats)
        return (u_BSD + (x_BSD - start_BSD) if self.is_parallel else x_BSD), stats


def _stack_loops(stats: list[list[RouterStats]]) -> RouterStats | None:
    """Statistics of every block of every pass as tensors ``[T, L, ...]``."""
    if not stats[0]:
        return None
    return _stack(RouterStats, [_stack(RouterStats, loop) for loop in stats])


def _stack(kind: type[T], items: Sequence[Iterable[Tensor]]) -> T:
    """A tuple of tensors from tuples of tensors, stacked along a new first axis."""
    return kind(*map(torch.stack, zip(*items, strict=True)))


@torch.no_grad()
def _observe(new_BSD: Tensor, old_BSD: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square of the new state, and its relative change, as means over tokens."""
    norm_BS = new_BSD.float().norm(dim=-1)
    change_BS = (new_BSD.float() - old_BSD.float()).norm(dim=-1)
    return (norm_BS / new_BSD.shape[-1] ** 0.5).mean(), (change_BS / norm_BS.clamp(min=1e-12)).mean()
