"""The only driver of the loop: a schedule specifies how each loop runs, observers look at the results."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.remat import NO_REMAT, Remat
from mythos.loop.variable_depth import SAME_DEPTH, Sequences
from mythos.types import RouterStats

ExpertIndices = list[Tensor | None]
"""The experts of each block of a loop, ``[N, K]`` int16; None for a dense block."""


class LoopStats(NamedTuple):
    """Statistics of one loop."""

    router: list[RouterStats]
    """Router statistics of each mixture of experts."""
    watched: list[Any]
    """Results of ``LoopInputs.watch`` for each block."""
    expert_indices: ExpertIndices
    parts: Sequence[Any] = ()
    """Results of ``LoopInputs.watch_part`` for each loop part."""

    def add(self, router: RouterStats | None, watched: Any, expert_indices_NK: Tensor | None) -> None:
        """Add the statistics of one block."""
        self.router.extend([] if router is None else [router])
        self.watched.append(watched)
        self.expert_indices.append(expert_indices_NK)


Step = Callable[[LoopState, LoopInputs, ExpertIndices | None], tuple[LoopState, LoopStats]]
"""One loop: returns the next state and statistics. Given expert indices replace routing."""


class Schedule:
    """Specifies how the loops of one forward run; the base class runs all of them alike and keeps all gradients."""

    num_grad_loops: int

    def __init__(self, num_loops: int) -> None:
        self.num_loops = self.num_grad_loops = num_loops

    def gradients(self, loop: int) -> AbstractContextManager[object]:
        """Return the gradient mode of a loop."""
        return nullcontext()

    def enter(self, state: LoopState, first: LoopState, loop: int) -> LoopState:
        """Return the initial state of a loop, from the states before it and before the first loop."""
        return state

    def inputs(self, inputs: LoopInputs, loop: int) -> LoopInputs:
        """Return the inputs of a loop."""
        return inputs._replace(loop=loop, num_loops=self.num_loops)

    def run(self, step: Step, state: LoopState, inputs: LoopInputs) -> tuple[LoopState, LoopStats]:
        """Run one loop."""
        return step(state, inputs, None)

    def is_over(self) -> bool:
        """Return whether the remaining loops can be skipped."""
        return False


class TrainingSchedule(Schedule):
    """Truncated backpropagation, recomputation, damping, and sequences with their own numbers of loops.

    Args:
        num_grad_loops: k, the number of last loops that keep gradients; None for all.
        damping: loops with gradients give (1 - damping) h + damping F(h) (Geng et al. 2021, arXiv 2111.05177). For
            training only: the map F itself, without damping, is the model.
    """

    def __init__(
        self,
        num_loops: int,
        num_grad_loops: int | None = None,
        sequences: Sequences = SAME_DEPTH,
        remat: Remat = NO_REMAT,
        damping: float = 1.0,
    ) -> None:
        super().__init__(num_loops)
        self.num_grad_loops = num_loops if num_grad_loops is None else num_grad_loops
        self.sequences, self.remat, self.damping = sequences, remat, damping
        self.keeps_gradients = torch.is_grad_enabled()

    def gradients(self, loop: int) -> AbstractContextManager[object]:
        return torch.set_grad_enabled(self.keeps_gradients and loop >= self.num_loops - self.num_grad_loops)

    def enter(self, state: LoopState, first: LoopState, loop: int) -> LoopState:
        return self.sequences.enter(state, first, loop)

    def inputs(self, inputs: LoopInputs, loop: int) -> LoopInputs:
        return self.sequences.inputs(super().inputs(inputs, loop), loop)

    def run(self, step: Step, state: LoopState, inputs: LoopInputs) -> tuple[LoopState, LoopStats]:
        def once(state: LoopState, expert_indices: ExpertIndices | None) -> tuple[LoopState, LoopStats, ExpertIndices]:
            new, stats = step(state, inputs, expert_indices)
            return new, stats, stats.expert_indices

        new, stats, _ = self.remat.loop(once, state)
        if self.damping < 1 and torch.is_grad_enabled():
            new = new._replace(h_BSD=(1 - self.damping) * state.h_BSD + self.damping * new.h_BSD)
        return new, stats


class FrozenRouting(Schedule):
    """Every loop uses the experts of the first one, weighted by the router's scores in that loop."""

    def __init__(self, num_loops: int) -> None:
        super().__init__(num_loops)
        self.expert_indices: ExpertIndices | None = None

    def run(self, step: Step, state: LoopState, inputs: LoopInputs) -> tuple[LoopState, LoopStats]:
        new, stats = step(state, inputs, self.expert_indices)
        self.expert_indices = stats.expert_indices
        return new, stats


class Observer:
    """Reads states and changes nothing; called in the gradient mode of each loop. The base class does nothing."""

    def start(self, schedule: Schedule, state: LoopState, inputs: LoopInputs) -> None:
        """Called before the first loop."""

    def see(self, loop: int, old: LoopState, new: LoopState, stats: LoopStats) -> None:
        """Called after each loop."""

    def end(self, state: LoopState) -> None:
        """Called after the last loop."""


def run_loop(
    step: Step, state: LoopState, inputs: LoopInputs, schedule: Schedule, observers: Sequence[Observer] = ()
) -> LoopState:
    """Run the loops of a schedule and return the state after the last one."""
    for observer in observers:
        observer.start(schedule, state, inputs)
    first = state
    for loop in range(schedule.num_loops):
        with schedule.gradients(loop):
            state = schedule.enter(state, first, loop)
            new, stats = schedule.run(step, state, schedule.inputs(inputs, loop))
            for observer in observers:
                observer.see(loop, state, new, stats)
        state = new
        if schedule.is_over():
            break
    for observer in observers:
        observer.end(state)
    return state
