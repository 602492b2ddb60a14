"""Schedules of decoding: all loops for all new tokens, or loops until an exit rule fires for each token."""

from collections.abc import Callable

import torch
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.layers.cache import DecodeCache, NoCache
from mythos.loop.exits.halting import Halting
from mythos.loop.exits.rules import Seen, stops
from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.run import LoopStats, Schedule, Step

Freeze = Callable[[Tensor, LoopState, LoopState], LoopState]
"""Function of the exited tokens, the old and the new state; in its result exited tokens keep their old values."""


class Decoding(Schedule):
    """All loops for all new tokens; ``DecodeCache`` contains earlier tokens in each loop."""

    def __init__(self, halting: Halting, cache: DecodeCache | NoCache, tokens_BS: Tensor) -> None:
        super().__init__(cache.num_loops)
        self.halting = halting
        self.cache = cache
        self.last_BS = torch.full_like(tokens_BS, cache.num_loops - 1)
        """Last loop of each token."""
        self.num_run = 0
        self.states: list[Tensor] = []
        self.gate_logits: list[Tensor] = []

    def inputs(self, inputs: LoopInputs, loop: int) -> LoopInputs:
        return inputs._replace(loop=loop, num_loops=self.num_loops, cache=self.cache.at(loop, None))

    def run(self, step: Step, state: LoopState, inputs: LoopInputs) -> tuple[LoopState, LoopStats]:
        new, stats = step(state, inputs, None)
        self.take(new)
        return new, stats

    def take(self, state: LoopState) -> None:
        """Store what the exit needs of a state."""
        self.num_run += 1
        self.states = self.halting.update_history(self.states, state.h_BSD)
        if self.halting.gate is not None:
            self.gate_logits.append(self.halting.gate(state.h_BSD))

    def exit_output(self) -> Tensor:
        """Return the input of the coda if the loop ends here."""
        return self.halting.exit_output(self.states, self.gate_logits, self.last_BS.clamp(max=len(self.states) - 1))


class EarlyExit(Decoding):
    """Each token exits when the rule fires for it; the loop ends when all tokens have exited.

    Args:
        exited_BS: True at tokens that are excluded, such as padding.
        logits: function from the input of the coda to logits ``[B, S, V]``.
    """

    def __init__(
        self,
        halting: Halting,
        cache: DecodeCache | NoCache,
        tokens_BS: Tensor,
        exited_BS: Tensor,
        rule: ExitRule,
        freeze: Freeze,
        logits: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(halting, cache, tokens_BS)
        self.exited_BS = exited_BS
        self.stops = stops(rule)
        self.freeze = freeze
        self.logits = logits

    def inputs(self, inputs: LoopInputs, loop: int) -> LoopInputs:
        return inputs._replace(loop=loop, num_loops=self.num_loops, cache=self.cache.at(loop, self.exited_BS))

    def run(self, step: Step, state: LoopState, inputs: LoopInputs) -> tuple[LoopState, LoopStats]:
        new, stats = step(state, inputs, None)
        new = self.freeze(self.exited_BS, state, new)
        self.take(new)
        if self.num_run < self.num_loops:
            self._let_exit(new.h_BSD)
        return new, stats

    def is_over(self) -> bool:
        return bool(self.exited_BS.all())

    def _let_exit(self, h_BSD: Tensor) -> None:
        """Apply the rule to the loop that has just run."""
        seen = Seen(h_BSD, lambda: self.halting.exit_mass(self.gate_logits), lambda: self.logits(self.exit_output()))
        exits_now_BS = self.stops(seen) & ~self.exited_BS
        self.last_BS = self.last_BS.masked_fill(exits_now_BS, self.num_run - 1)
        self.exited_BS = self.exited_BS | exits_now_BS
