"""The recurrent core: a few blocks, passed T times over one state."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mythos.config.model import ModelConfig
from mythos.config.parallel import ParallelBase, SingleParallel
from mythos.layers.cache import KVCache
from mythos.layers.mask import Mask, mask_of_rows
from mythos.layers.norm import RMSNorm
from mythos.layers.rope import Rotation
from mythos.loop.change import relative_change, update_norm
from mythos.loop.injection import build_injection
from mythos.loop.remat import recomputed
from mythos.loop.trace import LoopRecorder
from mythos.loop.variable_depth import VariableDepthBatch
from mythos.model.block import Block
from mythos.types import LoopTrace, RouterStats

_FINITE_DIFFERENCE = 1e-2
"""Size of the change in ``growth``, relative to the state: above fp32's rounding, below the blocks' curvature."""
ExpertIndices = list[Tensor | None]
"""The experts chosen in each block of a pass, ``[N, K]`` int16; None for a dense block."""


class LoopStats(NamedTuple):
    """What one pass saw, block by block."""

    router: list[RouterStats]
    """Of the mixtures of experts."""
    update_norms: list[Tensor]
    """Mean over tokens of what each block added relative to its input, ``[B]``; empty unless asked for."""


class CoreOutput(NamedTuple):
    """States where the caller asked for an exit, the last state, and what was seen on the way."""

    exit_states: list[Tensor]
    state_BSD: Tensor
    router_stats: RouterStats | None
    trace: LoopTrace | None
    change_T: Tensor | None


class Core(nn.Module):
    """h_{t+1} = u + R(u) or u + R(norm(h_t + e)), with u = inject(h_t, e) and R the blocks' residual change."""

    router_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.injection = build_injection(config.injection, config.dim)
        self.is_parallel = config.injection.update_rule == "parallel"
        self.parallel_norm = RMSNorm(config.dim, config.norm_eps) if self.is_parallel else None
        self.blocks = nn.ModuleList(
            Block(config, config.core_ffn, config.core_residual_scale) for _ in range(config.num_core_layers)
        )
        self.max_loops = config.max_loops
        self.remat: ParallelBase = SingleParallel()
        """Set from outside: what the backward computes again."""
        num_experts = config.core_ffn.num_experts if config.core_ffn.kind == "moe" else 0
        shape = (config.num_core_layers, config.max_loops, num_experts)
        self.register_buffer("router_bias", torch.zeros(shape))

    def forward(
        self,
        h_BSD: Tensor,
        e_BSD: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        num_loops: int,
        num_grad_loops: int,
        exits: Sequence[int],
        trace: bool = False,
        consistency: bool = False,
        rows: VariableDepthBatch | None = None,
        damping: float = 1.0,
    ) -> CoreOutput:
        """Run ``num_loops`` passes, the last ``num_grad_loops`` of them with gradients.

        Args:
            h_BSD: the state before the first pass.
            e_BSD: the prelude's output, injected at every pass.
            exits: 0-based passes whose states are wanted.
            rows: how the rows differ in depth, deepest first; None runs all of them in every pass. Per-loop tables,
                expert counts and the trace then go by a row's own loop index, all else by the batch's pass.
            damping: passes with gradients give (1 - damping) h + damping F(h) (Geng et al. 2021, arXiv 2111.05177).
                For training only: the map F itself, without damping, is the model.
        """
        exit_states, stats, changes, counts = [], [], [], []
        num_active_T = [h_BSD.shape[0]] * num_loops if rows is None else rows.num_active_T
        recorder = LoopRecorder(h_BSD, num_loops, self.router_bias.shape[-1], rows) if trace else None
        initial_BSD, h_BSD = h_BSD, h_BSD[: num_active_T[0]]
        for loop, num_rows in enumerate(num_active_T):
            has_grad = torch.is_grad_enabled() and loop >= num_loops - num_grad_loops
            run = partial(
                self.step,
                e_BSD=e_BSD[:num_rows],
                rotation=Rotation(*(part[:num_rows] for part in rotation)),
                mask=mask if mask is None or rows is None else mask_of_rows(mask, num_rows),
                loop=loop if rows is None else rows.own_loop(loop),
                token_stride=0 if recorder is None else recorder.stride,
            )
            with torch.set_grad_enabled(has_grad):
                if num_rows > h_BSD.shape[0]:
                    h_BSD = torch.cat((h_BSD, initial_BSD[h_BSD.shape[0] : num_rows]))
                if has_grad:
                    new_BSD, loop_stats, expert_indices = self._graded(run, h_BSD, damping)
                else:
                    new_BSD, loop_stats, expert_indices = run(h_BSD)
                if consistency:
                    changes.append(relative_change(new_BSD, h_BSD).square().sum())
            if recorder is not None:
                recorder.see(new_BSD, h_BSD, loop_stats.update_norms, expert_indices)
            h_BSD = new_BSD
            stats.append(loop_stats.router)
            if rows is not None and loop_stats.router:
                counts.append(_counts_of_rows(expert_indices, num_rows, self.router_bias.shape[-1]))
            if loop in exits:
                exit_states.append(h_BSD)
        router_stats = _stack_loops(stats)
        if rows is not None and router_stats is not None:
            router_stats = router_stats._replace(counts_E=rows.sum_by_own_loop(counts))
        return CoreOutput(
            exit_states=exit_states,
            state_BSD=h_BSD,
            router_stats=router_stats,
            trace=None if recorder is None else recorder.trace(),
            change_T=torch.stack(changes) if consistency else None,
        )

    def growth(
        self,
        h_BSD: Tensor,
        e_BSD: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        loop: int | Tensor,
        num_iterations: int,
        direction_BSD: Tensor,
    ) -> Tensor:
        """|F(h + v) - F(h)|^2 / |v|^2 of each sequence for a small v that ``num_iterations`` passes have turned.

        The power method on finite differences: it needs no second derivatives, so every attention and expert kernel
        serves. Experts are those of F(h), and h and e are constants: the gradient reaches the core's weights only.
        """
        h_BSD, e_BSD = h_BSD.detach(), e_BSD.detach()
        run = partial(self.step, e_BSD=e_BSD, rotation=rotation, mask=mask, loop=loop)
        size_B11 = _FINITE_DIFFERENCE * h_BSD.float().norm(dim=(1, 2), keepdim=True).clamp(min=1e-6)
        with torch.no_grad():
            base_BSD, _, expert_indices = run(h_BSD)
            for _ in range(num_iterations):
                v_BSD = size_B11 * direction_BSD / direction_BSD.norm(dim=(1, 2), keepdim=True).clamp(min=1e-20)
                direction_BSD = run(h_BSD + v_BSD, expert_indices)[0].float() - base_BSD.float()
            v_BSD = size_B11 * direction_BSD / direction_BSD.norm(dim=(1, 2), keepdim=True).clamp(min=1e-20)
        moved_BSD, base_BSD = run(h_BSD + v_BSD, expert_indices)[0], run(h_BSD, expert_indices)[0]
        return ((moved_BSD - base_BSD).float() / size_B11).square().sum((1, 2))

    def step(
        self,
        h_BSD: Tensor,
        expert_indices: ExpertIndices | None = None,
        *,
        e_BSD: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        loop: int | Tensor,
        caches: Sequence[KVCache] | None = None,
        token_stride: int = 0,
    ) -> tuple[Tensor, LoopStats, ExpertIndices]:
        """One pass: the next state, what was seen of each block, and the experts chosen (or repeated).

        Args:
            loop: its index, one for all rows or ``[B]`` with one for each; says which row of the per-loop tables.
            token_stride: measure what each block adds at every so many tokens; 0 does not.
        """
        last = self.max_loops - 1
        table_row = min(loop, last) if isinstance(loop, int) else loop.clamp(max=last)
        u_BSD = self.injection(h_BSD, e_BSD)
        start_BSD = u_BSD if self.parallel_norm is None else self.parallel_norm(h_BSD + e_BSD)
        x_BSD, stats, chosen = start_BSD, LoopStats([], []), []
        for layer, block in enumerate(self.blocks):
            run = partial(
                _run_block,
                block=block,
                rotation=rotation,
                mask=mask,
                bias_E=self.router_bias[layer, table_row],
                cache=None if caches is None else caches[layer],
            )
            before_BSD = x_BSD
            if self.remat.remat == "block" and torch.is_grad_enabled():
                x_BSD, block_stats, expert_indices_NK = recomputed(run, x_BSD)
            else:
                x_BSD, block_stats, expert_indices_NK = run(
                    x_BSD, None if expert_indices is None else expert_indices[layer]
                )
            chosen.append(expert_indices_NK)
            if block_stats is not None:
                stats.router.append(block_stats)
            if token_stride:
                with torch.no_grad():
                    norm_BS = update_norm(x_BSD[:, ::token_stride], before_BSD[:, ::token_stride])
                    stats.update_norms.append(norm_BS.mean(1))
        return (u_BSD + (x_BSD - start_BSD) if self.is_parallel else x_BSD), stats, chosen

    def _graded(
        self, run: Callable[..., tuple[Tensor, LoopStats, ExpertIndices]], h_BSD: Tensor, damping: float
    ) -> tuple[Tensor, LoopStats, ExpertIndices]:
        """A pass that keeps gradients, or what they are computed from again."""
        if self.remat.remat == "loop":
            new_BSD, stats, expert_indices = recomputed(run, h_BSD, self.remat.offload_states)
        else:
            new_BSD, stats, expert_indices = run(h_BSD)
        if damping < 1:
            new_BSD = (1 - damping) * h_BSD + damping * new_BSD
        return new_BSD, stats, expert_indices


def _run_block(
    x_BSD: Tensor,
    expert_indices_NK: Tensor | None,
    *,
    block: nn.Module,
    rotation: Rotation,
    mask: Mask | None,
    bias_E: Tensor,
    cache: KVCache | None,
) -> tuple[Tensor, RouterStats | None, Tensor | None]:
    return block(x_BSD, rotation, mask, bias_E, cache, expert_indices_NK)


def _stack_loops(stats: list[list[RouterStats]]) -> RouterStats | None:
    """Statistics of every block of every pass as tensors ``[T, L, ...]``."""
    if not stats[0]:
        return None
    return _stack([_stack(loop) for loop in stats])


def _stack(items: Sequence[Iterable[Tensor]]) -> RouterStats:
    """One tuple of tensors from many, stacked along a new first axis."""
    return RouterStats(*map(torch.stack, zip(*items, strict=True)))


@torch.no_grad()
def _counts_of_rows(expert_indices: ExpertIndices, num_rows: int, num_experts: int) -> Tensor:
    """Tokens of each row that chose each expert in the blocks of one pass, ``[rows, L, E]`` int64."""
    chosen_BLM = torch.stack([c.view(num_rows, -1) for c in expert_indices if c is not None], dim=1).long()
    counts_BLE = chosen_BLM.new_zeros(*chosen_BLM.shape[:2], num_experts)
    return counts_BLE.scatter_add_(2, chosen_BLM, torch.ones_like(chosen_BLM))
