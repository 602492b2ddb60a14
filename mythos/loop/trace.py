"""What a forward shows of its loops: each figure as a pure function, and the recorder that gathers them by loop."""

import torch
from torch import Tensor

from mythos.loop.change import curvature_ratio, relative_change
from mythos.loop.variable_depth import VariableDepthBatch
from mythos.types import ExpertTrace, LoopTrace

MAX_TOKENS = 2048
"""Most tokens of a micro-batch that the trace looks at (or one of each row): evenly spaced, the same in every loop."""
_TINY = 1e-12
_NUM_STATE_FIGURES = 5


def token_correlation(h_BSD: Tensor) -> Tensor:
    """Mean cosine between the states of two different tokens, ``[B]`` fp32; 0 for a single token.

    (|sum_i u_i|^2 - n) / (n (n - 1)) with unit vectors u: no n x n matrix is made.
    """
    num_tokens = h_BSD.shape[1]
    unit_BSD = torch.nn.functional.normalize(h_BSD.float(), dim=-1, eps=_TINY)
    square_B = unit_BSD.sum(1).square().sum(-1)
    return (square_B - num_tokens) / max(num_tokens * (num_tokens - 1), 1)


def expert_trace(expert_indices_LTNK: Tensor, num_experts: int) -> ExpertTrace:
    """Compare the sets of experts that each token chose in each loop.

    Path diversity is Psi = (1 / K) E |union over loops r <= t of E_r| (Meta, "Scaling Laws for Looped MoE").

    Args:
        expert_indices_LTNK: indices of the chosen experts of each layer; -1 where a token did not run a loop.
    """
    num_loops, num_active = expert_indices_LTNK.shape[1], expert_indices_LTNK.shape[3]
    present_TN = expert_indices_LTNK[0, :, :, 0] >= 0
    num_tokens_T = present_TN.sum(1).clamp(min=1)
    identical, disjoint, diversity = [], [], []
    overlap_TT = torch.zeros(num_loops, num_loops, device=expert_indices_LTNK.device)
    for expert_indices_TNK in expert_indices_LTNK:
        chosen_TNE = _membership(expert_indices_TNK, num_experts)
        with torch.autocast(expert_indices_LTNK.device.type, enabled=False):
            shared_NTT = torch.einsum("tne,sne->nts", chosen_TNE, chosen_TNE)
        overlap_TT += (shared_NTT / (2 * num_active - shared_NTT)).sum(0)
        with_last_TN = torch.nn.functional.pad(shared_NTT.diagonal(-1, 1, 2).T, (0, 0, 1, 0), value=0.5)
        identical.append((with_last_TN == num_active).sum(1) / num_tokens_T)
        disjoint.append(((with_last_TN == 0) & present_TN).sum(1) / num_tokens_T)
        num_seen_TN = chosen_TNE.cumsum_(0).clamp_(max=1).sum(-1) * present_TN
        diversity.append(num_seen_TN.sum(1) / (num_active * num_tokens_T))
    num_pairs_TT = torch.minimum(num_tokens_T[:, None], num_tokens_T) * len(expert_indices_LTNK)
    return ExpertTrace(
        identical_TL=torch.stack(identical, dim=1),
        disjoint_TL=torch.stack(disjoint, dim=1),
        path_diversity_TL=torch.stack(diversity, dim=1),
        overlap_TT=overlap_TT / num_pairs_TT,
    )


class LoopRecorder:
    """Gathers the trace of one forward, pass by pass. Lives as long as the forward; nothing waits for the device."""

    def __init__(self, initial_BSD: Tensor, num_loops: int, num_experts: int, rows: VariableDepthBatch | None) -> None:
        num_rows, num_tokens = initial_BSD.shape[:2]
        self.rows = rows
        self.num_experts = num_experts
        self.stride = min(num_tokens, -(-num_rows * num_tokens // MAX_TOKENS))
        """Every so many tokens one is looked at."""
        self.figures_RF: list[Tensor] = []
        """Of each pass and row: norm, relative change, cosine, second difference, token correlation, block updates."""
        self.expert_indices: list[list[Tensor]] = []
        self.change_before_BSD: Tensor | None = None
        self.gradient_square_T = torch.zeros(num_loops, device=initial_BSD.device)
        self.num_grad_rows_T = torch.zeros(num_loops, device=initial_BSD.device)

    @torch.no_grad()
    def see(
        self, new_BSD: Tensor, old_BSD: Tensor, update_norms: list[Tensor], expert_indices: list[Tensor | None]
    ) -> None:
        """Take in one pass.

        Args:
            update_norms: of each block, a mean over the tokens of each row, ``[R]``.
            choices: the experts chosen in each block, ``[N, K]``; None for a dense block.
        """
        if new_BSD.requires_grad:
            self._follow_gradient(new_BSD, len(self.figures_RF))
        new, old = new_BSD[:, :: self.stride].float(), old_BSD[:, :: self.stride].float()
        change = new - old
        before = torch.zeros_like(change)
        if self.change_before_BSD is not None:  # rows that enter now have none
            before[: self.change_before_BSD.shape[0]] = self.change_before_BSD
        figures = [
            new.square().mean(-1).sqrt().mean(1),
            relative_change(new, old).mean(1),
            torch.nn.functional.cosine_similarity(new, old, dim=-1, eps=_TINY).mean(1),
            curvature_ratio(change, before).mean(1),
            token_correlation(new),
            *update_norms,
        ]
        self.figures_RF.append(torch.stack(figures, dim=1))
        self.change_before_BSD = change
        num_rows, num_tokens = new_BSD.shape[:2]
        of_tokens = [c.view(num_rows, num_tokens, -1)[:, :: self.stride] for c in expert_indices if c is not None]
        self.expert_indices.append(of_tokens)

    @torch.no_grad()
    def trace(self) -> LoopTrace:
        """What was seen, by the rows' own loops."""
        num_rows_T = self._sum_by_loop([torch.ones_like(figures[:, 0]) for figures in self.figures_RF])
        figures_TF = self._sum_by_loop(self.figures_RF) / num_rows_T[:, None]
        norm_T, change_T, cosine_T, bend_T, correlation_T = figures_TF[:, :_NUM_STATE_FIGURES].unbind(1)
        bend_T = torch.cat((torch.zeros_like(bend_T[:1]), bend_T[1:]))
        return LoopTrace(
            num_rows_T=num_rows_T,
            state_norm_T=norm_T,
            relative_change_T=change_T,
            cosine_T=cosine_T,
            curvature_ratio_T=bend_T,
            token_correlation_T=correlation_T,
            update_norm_TL=figures_TF[:, _NUM_STATE_FIGURES:],
            experts=expert_trace(self._expert_indices_by_loop(), self.num_experts) if self.expert_indices[0] else None,
            gradient_square_T=self.gradient_square_T,
            num_grad_rows_T=self.num_grad_rows_T,
        )

    def _follow_gradient(self, new_BSD: Tensor, index: int) -> None:
        """Have the backward add the gradient's squared norm to ``gradient_square_T``; the state itself is not kept.

        The hook sits on the tensor inside the forward: ZeRO-3 hands callers copies of what a module returns, and the
        gradient does not come past a copy that the loss did not use.
        """
        loops_R = torch.full_like(new_BSD[:, 0, 0], index, dtype=torch.int64)
        loops_R = loops_R if self.rows is None else self.rows.own_loop(index)
        square_T, num_rows_T = self.gradient_square_T, self.num_grad_rows_T

        def add(gradient_BSD: Tensor) -> None:
            with torch.no_grad():
                norm_R = torch.linalg.vector_norm(gradient_BSD, dim=(1, 2), dtype=torch.float32)
                square_T.index_add_(0, loops_R, norm_R.square())
                num_rows_T.index_add_(0, loops_R, torch.ones_like(norm_R))

        new_BSD.register_hook(add)

    def _sum_by_loop(self, value_by_loop: list[Tensor]) -> Tensor:
        """Sums over rows ``[T, ...]``."""
        if self.rows is None:
            return torch.stack(value_by_loop).sum(1)
        return self.rows.sum_by_own_loop(value_by_loop)

    def _expert_indices_by_loop(self) -> Tensor:
        """``[L, T, N, K]``, -1 where a row did not run a loop."""
        loops = [torch.stack(of_layers, dim=1) for of_layers in self.expert_indices]  # [R, L, S, K] each
        chosen_TRLSK = loops[-1].new_full((len(loops), *loops[-1].shape), -1)
        for index, chosen_RLSK in enumerate(loops):
            num_rows = chosen_RLSK.shape[0]
            if self.rows is None:
                chosen_TRLSK[index] = chosen_RLSK
            else:
                place = torch.arange(num_rows, device=chosen_RLSK.device)
                chosen_TRLSK[self.rows.own_loop(index), place] = chosen_RLSK
        return chosen_TRLSK.permute(2, 0, 1, 3, 4).flatten(2, 3)


def _membership(expert_indices_TNK: Tensor, num_experts: int) -> Tensor:
    """1 where a token chose an expert, ``[T, N, E]`` fp32; a choice of -1 is none."""
    one_more = torch.zeros(*expert_indices_TNK.shape[:2], num_experts + 1, device=expert_indices_TNK.device)
    return one_more.scatter_(2, expert_indices_TNK.long() + 1, 1.0)[..., 1:]
