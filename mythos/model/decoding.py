"""How the loops run over new tokens while decoding: all of them, or until a rule lets each token exit."""

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
"""Which tokens have exited, the states before and after a loop: the state in which these tokens stand still."""


class Decoding(Schedule):
    """All loops for all new tokens; ``DecodeCache`` holds what earlier tokens were in each of them."""

    def __init__(self, halting: Halting, cache: DecodeCache | NoCache, tokens_BS: Tensor) -> None:
        super().__init__(cache.num_loops)
        self.halting = halting
        self.cache = cache
        self.last_BS = torch.full_like(tokens_BS, cache.num_loops - 1)
        """The last loop of each token."""
        self.num_run = 0
        self.states: list[Tensor] = []
        self.gate_logits: list[Tensor] = []

    def inputs(self, inputs: LoopInputs, loop: int) -> LoopInputs:
        return inputs._replace(loop=loop, cache=self.cache.at(loop, None))

    def run(self, step: Step, state: LoopState, inputs: LoopInputs) -> tuple[LoopState, LoopStats]:
        new, stats = step(state, inputs, None)
        self.take(new)
        return new, stats

    def take(self, state: LoopState) -> None:
        """Remember what the exit will read of a state."""
        self.num_run += 1
        self.states = self.halting.update_history(self.states, state.h_BSD)
        if self.halting.gate is not None:
            self.gate_logits.append(self.halting.gate(state.h_BSD))

    def exit_output(self) -> Tensor:
        """What coda and head read if the loop ends here."""
        return self.halting.exit_output(self.states, self.gate_logits, self.last_BS.clamp(max=len(self.states) - 1))


class EarlyExit(Decoding):
    """Each token exits when a rule lets it; the loop ends when all have.

    Args:
        exited_BS: tokens that take no part, as padding does.
        logits: of the state that coda and head would read, ``[B, S, V]``.
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
        return inputs._replace(loop=loop, cache=self.cache.at(loop, self.exited_BS))

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
        """Ask the rule which tokens exit after the loop that has just run."""
        seen = Seen(h_BSD, lambda: self.halting.exit_mass(self.gate_logits), lambda: self.logits(self.exit_output()))
        exits_now_BS = self.stops(seen) & ~self.exited_BS
        self.last_BS = self.last_BS.masked_fill(exits_now_BS, self.num_run - 1)
        self.exited_BS = self.exited_BS | exits_now_BS
