"""Record the loop trace of one forward."""

from functools import partial

import torch
from torch import Tensor

from mythos.layers.attention_part import Carry
from mythos.loop.change import curvature_ratio, relative_change, update_norm
from mythos.loop.part import LoopInputs, LoopPart, LoopState, Watch, WatchPart
from mythos.loop.run import LoopStats, Observer, Schedule
from mythos.loop.trace import expert_trace, token_correlation
from mythos.loop.variable_depth import SAME_DEPTH, Sequences
from mythos.types import LoopTrace

MAX_TOKENS = 2048
"""Largest number of tokens of a micro-batch in the trace (at least one of each sequence): evenly spaced, the same in
every loop."""
NEAR_0, NEAR_1 = 0.02, 0.98
"""A gate whose absolute value is below the first or above the second is saturated."""
_TINY = 1e-12
_NUM_STATE_FIGURES = 5


class LoopRecorder(Observer):
    """Records the statistics of every loop of one forward, without waiting for the device.

    Args:
        tokens_BS: tokens of the batch, in the order in which it runs.
    """

    def __init__(self, tokens_BS: Tensor, num_experts: int, sequences: Sequences = SAME_DEPTH) -> None:
        num_sequences, num_tokens = tokens_BS.shape
        self.sequences = sequences
        self.num_experts = num_experts
        self.stride = min(num_tokens, -(-num_sequences * num_tokens // MAX_TOKENS))
        """Distance between recorded tokens."""
        self.figures_RF: list[Tensor] = []
        """By loop and sequence: norm, relative change, cosine, curvature ratio, token correlation, block updates."""
        self.expert_indices: list[list[Tensor]] = []
        self.change_before_BSD: Tensor | None = None
        self.gates: list[tuple[dict[str, Tensor], ...]] = []
        """By loop and part: mean, share near 0 and share near 1 of each gate, ``[R, 3]`` by its name."""

    @property
    def watch_part(self) -> WatchPart:
        """Function that returns the figures of a part's gates, averaged over the tokens of each sequence."""
        return partial(_gate_figures, stride=self.stride)

    @property
    def watch(self) -> Watch:
        """Function that returns the relative update of a block, averaged over the tokens of each sequence, ``[R]``."""
        return partial(_mean_update_norm, stride=self.stride)

    def start(self, schedule: Schedule, state: LoopState, inputs: LoopInputs) -> None:
        self.gradient_square_T = torch.zeros(schedule.num_loops, device=state.h_BSD.device)
        self.num_grad_rows_T = torch.zeros(schedule.num_loops, device=state.h_BSD.device)

    @torch.no_grad()
    def see(self, loop: int, old: LoopState, new: LoopState, stats: LoopStats) -> None:
        if new.h_BSD.requires_grad:
            self._follow_gradient(new.h_BSD, loop)
        new_BSD, old_BSD = (state.h_BSD[:, :: self.stride].float() for state in (new, old))
        change_BSD = new_BSD - old_BSD
        before_BSD = torch.zeros_like(change_BSD)
        if self.change_before_BSD is not None:  # sequences that enter now have none
            before_BSD[: self.change_before_BSD.shape[0]] = self.change_before_BSD
        figures = [
            new_BSD.square().mean(-1).sqrt().mean(1),
            relative_change(new_BSD, old_BSD).mean(1),
            torch.nn.functional.cosine_similarity(new_BSD, old_BSD, dim=-1, eps=_TINY).mean(1),
            curvature_ratio(change_BSD, before_BSD).mean(1),
            token_correlation(new_BSD),
            *stats.watched,
        ]
        self.figures_RF.append(torch.stack(figures, dim=1))
        self.change_before_BSD = change_BSD
        self.gates.append(tuple(stats.parts))
        shape = (*new.h_BSD.shape[:2], -1)
        indices = [each.view(shape)[:, :: self.stride] for each in stats.expert_indices if each is not None]
        self.expert_indices.append(indices)

    @torch.no_grad()
    def trace(self) -> LoopTrace:
        """Return the trace, by the sequences' own loops."""
        by_own_loop = self.sequences.sum_by_own_loop
        num_rows_T = by_own_loop([torch.ones_like(figures_RF[:, 0]) for figures_RF in self.figures_RF])
        figures_TF = by_own_loop(self.figures_RF) / num_rows_T[:, None]
        norm_T, change_T, cosine_T, curvature_T, correlation_T = figures_TF[:, :_NUM_STATE_FIGURES].unbind(1)
        curvature_T = torch.cat((torch.zeros_like(curvature_T[:1]), curvature_T[1:]))
        has_experts = bool(self.expert_indices[0])
        return LoopTrace(
            num_rows_T=num_rows_T,
            state_norm_T=norm_T,
            relative_change_T=change_T,
            cosine_T=cosine_T,
            curvature_ratio_T=curvature_T,
            token_correlation_T=correlation_T,
            update_norm_TL=figures_TF[:, _NUM_STATE_FIGURES:],
            experts=expert_trace(self._expert_indices_by_loop(), self.num_experts) if has_experts else None,
            gates=tuple(
                {name: by_own_loop([loop[part][name] for loop in self.gates]) / num_rows_T[:, None] for name in gates}
                for part, gates in enumerate(self.gates[0])
            ),
            gradient_square_T=self.gradient_square_T,
            num_grad_rows_T=self.num_grad_rows_T,
        )

    def _follow_gradient(self, new_BSD: Tensor, loop: int) -> None:
        """Add the gradient's squared norm to ``gradient_square_T`` in the backward, without storing the state.

        The hook is on the tensor inside the forward: ZeRO-3 gives callers copies of what a module returns, and the
        gradient does not pass through a copy that the loss did not use.
        """
        loops_R = torch.zeros_like(new_BSD[:, 0, 0], dtype=torch.int64) + self.sequences.own_loop(loop)
        square_T, num_rows_T = self.gradient_square_T, self.num_grad_rows_T

        def add(gradient_BSD: Tensor) -> None:
            with torch.no_grad():
                norm_R = torch.linalg.vector_norm(gradient_BSD, dim=(1, 2), dtype=torch.float32)
                square_T.index_add_(0, loops_R, norm_R.square())
                num_rows_T.index_add_(0, loops_R, torch.ones_like(norm_R))

        new_BSD.register_hook(add)

    def _expert_indices_by_loop(self) -> Tensor:
        """Return expert indices ``[L, T, N, K]``, -1 where a sequence did not run a loop."""
        loops = [torch.stack(of_layers, dim=1) for of_layers in self.expert_indices]  # [R, L, S, K] each
        indices_TRLSK = loops[-1].new_full((len(loops), *loops[-1].shape), -1)
        for loop, indices_RLSK in enumerate(loops):
            self.sequences.scatter(indices_TRLSK, loop, indices_RLSK)
        return indices_TRLSK.permute(2, 0, 1, 3, 4).flatten(2, 3)


@torch.no_grad()
def _gate_figures(
    part: LoopPart, h_BSD: Tensor, y_BSD: Tensor, carry: Carry, inputs: LoopInputs, stride: int
) -> dict[str, Tensor]:
    def figures(gate: Tensor) -> Tensor:
        gate_RN = gate[:, ::stride].flatten(1).float()
        size_RN = gate_RN.abs()
        return torch.stack((gate_RN, (size_RN < NEAR_0).float(), (size_RN > NEAR_1).float()), 1).mean(2)

    return {name: figures(gate) for name, gate in part.gates(h_BSD, y_BSD, carry, inputs).items()}


@torch.no_grad()
def _mean_update_norm(before_BSD: Tensor, after_BSD: Tensor, stride: int) -> Tensor:
    return update_norm(after_BSD[:, ::stride], before_BSD[:, ::stride]).mean(1)
