"""Observers that collect the figures which a forward returns."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from mythos.loop.change import relative_change
from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.run import LoopStats, Observer, Schedule
from mythos.loop.variable_depth import SAME_DEPTH, Sequences
from mythos.types import RouterStats


class ExitStates(Observer):
    """Collects the states after the given loops."""

    def __init__(self, loops: Collection[int]) -> None:
        self.loops = loops
        self.states: list[Tensor] = []

    def see(self, loop: int, old: LoopState, new: LoopState, stats: LoopStats) -> None:
        if loop in self.loops:
            self.states.append(new.h_BSD)


class LoopHistory(Observer):
    """Collects every state, including the one before the first loop, and the statistics of each loop."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self.stats: list[LoopStats] = []

    def start(self, schedule: Schedule, state: LoopState, inputs: LoopInputs) -> None:
        self.states.append(state.h_BSD)

    def see(self, loop: int, old: LoopState, new: LoopState, stats: LoopStats) -> None:
        self.states.append(new.h_BSD)
        self.stats.append(stats)


class StateChange(Observer):
    """Collects the sum over tokens of |h' - h|^2 / |h'|^2, with its gradient."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def see(self, loop: int, old: LoopState, new: LoopState, stats: LoopStats) -> None:
        self.sums.append(relative_change(new.h_BSD, old.h_BSD).square().sum())

    def change_T(self) -> Tensor:
        """Return the sums by loop, ``[T]``."""
        return torch.stack(self.sums)


class RouterTotals(Observer):
    """Collects router statistics of every block of every loop."""

    def __init__(self, sequences: Sequences = SAME_DEPTH) -> None:
        self.sequences = sequences
        self.router: list[list[RouterStats]] = []
        self.counts: list[Tensor] = []

    def see(self, loop: int, old: LoopState, new: LoopState, stats: LoopStats) -> None:
        self.router.append(stats.router)
        if stats.router:
            self.counts += self.sequences.recount(new.h_BSD.shape[0], stats.router, stats.expert_indices)

    def totals(self) -> RouterStats | None:
        """Return them stacked ``[T, L, ...]``, the counts by the sequences' own loops; None if the core is dense."""
        if not self.router[0]:
            return None
        totals = _stack([_stack(of_blocks) for of_blocks in self.router])
        return totals._replace(counts_E=self.sequences.sum_by_own_loop(self.counts)) if self.counts else totals


def _stack(items: Sequence[Iterable[Tensor]]) -> RouterStats:
    """Return one tuple of tensors from many, stacked along a new first axis."""
    return RouterStats(*map(torch.stack, zip(*items, strict=True)))
