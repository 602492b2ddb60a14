"""The step from the states after the loops to the input of coda and head, with the probability of each exit."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mythos.config.halting import ActHalting, FixedHalting, HaltingConfig, PonderHalting
from mythos.loop.exits.distribution import adaptive_computation_time, exit_at_median, stick_breaking
from mythos.loop.exits.gate import HaltingGate


class HaltingOutput(NamedTuple):
    """States of X exits, and the distribution that weighs them; see ``ModelOutput``."""

    states: list[Tensor]
    exit_prob_XBS: Tensor
    halting_TBS: Tensor | None
    ponder_BS: Tensor | None
    stop_logit_TBS: Tensor | None


class Halting(nn.Module):
    """Turns states into exits; holds the gate of a learned halting, and no parameters when halting is fixed."""

    def __init__(self, config: HaltingConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.gate = (
            None
            if isinstance(config, FixedHalting)
            else HaltingGate(dim, config.hidden_dim, config.initial_probability)
        )

    def required_exits(self, num_loops: int, exits: tuple[int, ...] | np.ndarray) -> tuple[int, ...]:
        """Return the 0-based loops whose states ``forward`` needs."""
        return exits if self.gate is None and isinstance(exits, tuple) else tuple(range(num_loops))

    def forward(self, states: list[Tensor], exits: tuple[int, ...] | np.ndarray) -> HaltingOutput:
        """Compute the states at ``exits`` from the states after the ``required_exits`` loops.

        Args:
            exits: 0-based loops, or ``[X, B]`` with those of each sequence, which only an exit distribution supports.
        """
        if self.gate is None:
            return HaltingOutput(states, _only_last(len(exits), states[0]), None, None, None)
        logit_TBS = torch.stack([self.gate(h_BSD) for h_BSD in states])
        match self.config:
            case ActHalting(threshold=threshold):
                means = []
                for last in exits:
                    weight_TBS, ponder_BS = adaptive_computation_time(logit_TBS[: last + 1], threshold)
                    means.append(_mean(states, weight_TBS))
                return HaltingOutput(means, _only_last(len(exits), states[0]), weight_TBS, ponder_BS, logit_TBS)
            case PonderHalting(straight_through=straight_through):
                p_TBS = stick_breaking(logit_TBS)
                exits_TBS = exit_at_median(p_TBS) if straight_through else p_TBS
                return HaltingOutput(_at(exits, states), torch.stack(_at(exits, exits_TBS)), p_TBS, None, logit_TBS)
            case _:
                raise AssertionError(f"no halting for {self.config}")

    def update_history(self, states: list[Tensor], new_BSD: Tensor) -> list[Tensor]:
        """Return the states that ``exit_output`` needs: all of them where it takes their mean, else the last one."""
        return [*states, new_BSD] if isinstance(self.config, ActHalting) else [new_BSD]

    def exit_mass(self, logits: list[Tensor]) -> Tensor:
        """Return the probability of having exited after the loops so far, ``[B, S]``, from the gate's logits."""
        logit_TBS = torch.stack([*logits, torch.zeros_like(logits[0])])  # the last loop's remainder is left out
        match self.config:
            case ActHalting(threshold=threshold):
                return adaptive_computation_time(logit_TBS, threshold)[0][:-1].sum(0)
            case PonderHalting():
                return stick_breaking(logit_TBS)[:-1].sum(0)
            case _:
                raise AssertionError(f"no exit distribution for {self.config}")

    def exit_output(self, states: list[Tensor], logits: list[Tensor], last_BS: Tensor) -> Tensor:
        """Return the input of coda and head for tokens that exit after loop ``last_BS`` and then keep their state."""
        match self.config:
            case ActHalting(threshold=threshold):
                loop_T = torch.arange(len(states), device=last_BS.device)
                is_last_TBS = loop_T[:, None, None] == last_BS
                logit_TBS = torch.stack(logits).masked_fill(is_last_TBS, float("inf"))  # the remainder goes there
                return _mean(states, adaptive_computation_time(logit_TBS, threshold)[0])
            case _:
                return states[-1]


def _at(exits: tuple[int, ...] | np.ndarray, values: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """Return the values ``[B, ...]`` at X exits, from those after each loop, without an index from the host."""
    if isinstance(exits, tuple):
        return [values[loop] for loop in exits]
    rows = {loop: values[loop].unbind() for loop in set(exits[:-1].flat)}
    drawn = [torch.stack([rows[loop][row] for row, loop in enumerate(loops_B)]) for loops_B in exits[:-1].tolist()]
    return [*drawn, values[-1]]


def _only_last(num_exits: int, state_BSD: Tensor) -> Tensor:
    """Return exit probabilities ``[X, B, S]`` that are one at the last exit."""
    prob_X = (torch.arange(num_exits, device=state_BSD.device) == num_exits - 1).float()
    return prob_X[:, None, None].expand(-1, *state_BSD.shape[:2])


def _mean(states: list[Tensor], weight_TBS: Tensor) -> Tensor:
    """Return the weighted sum of the first states, in their dtype."""
    total = sum(weight_BS[..., None] * h_BSD for weight_BS, h_BSD in zip(weight_TBS, states, strict=False))
    assert isinstance(total, Tensor)
    return total.to(states[0].dtype)
