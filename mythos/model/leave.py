"""From the states of the passes to what coda and head read, and with what probability."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mythos.config.halting import ActHalting, FixedHalting, HaltingConfig, PonderHalting
from mythos.loop.halting import HaltingGate, adaptive_computation_time, leave_at_median, stick_breaking


class Leaving(NamedTuple):
    """X states to read, and the halting behind them; see ``ModelOutput``."""

    states: list[Tensor]
    exit_prob_XBS: Tensor
    halting_TBS: Tensor | None
    ponder_BS: Tensor | None
    stop_logit_TBS: Tensor | None


class Halting(nn.Module):
    """Turns states into exits; holds the gate of a learned halting, and nothing when halting is fixed."""

    def __init__(self, config: HaltingConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.gate = (
            None
            if isinstance(config, FixedHalting)
            else HaltingGate(dim, config.hidden_dim, config.initial_probability)
        )

    def wanted(self, num_loops: int, exits: tuple[int, ...]) -> tuple[int, ...]:
        """The passes whose states ``forward`` needs."""
        return exits if self.gate is None else tuple(range(num_loops))

    def forward(self, states: list[Tensor], exits: tuple[int, ...]) -> Leaving:
        """States of the ``wanted`` passes to states at ``exits``."""
        if self.gate is None:
            return Leaving(states, _only_last(len(exits), states[0]), None, None, None)
        logit_TBS = torch.stack([self.gate(h_BSD) for h_BSD in states])
        match self.config:
            case ActHalting(threshold=threshold):
                mixed = []
                for last in exits:
                    weight_TBS, ponder_BS = adaptive_computation_time(logit_TBS[: last + 1], threshold)
                    mixed.append(_mean(states, weight_TBS))
                return Leaving(mixed, _only_last(len(exits), states[0]), weight_TBS, ponder_BS, logit_TBS)
            case PonderHalting(straight_through=straight_through):
                p_TBS = stick_breaking(logit_TBS)
                leaves_TBS = leave_at_median(p_TBS) if straight_through else p_TBS
                read = [states[loop] for loop in exits]
                return Leaving(read, leaves_TBS[list(exits)], p_TBS, None, logit_TBS)
            case _:
                raise AssertionError(f"no halting for {self.config}")


def _only_last(num_exits: int, state_BSD: Tensor) -> Tensor:
    """All probability on the last exit."""
    prob_X = torch.zeros(num_exits, device=state_BSD.device)
    prob_X[-1] = 1.0
    return prob_X[:, None, None].expand(-1, *state_BSD.shape[:2])


def _mean(states: list[Tensor], weight_TBS: Tensor) -> Tensor:
    """Weighted sum of the first states, in their dtype."""
    total = sum(weight_BS[..., None] * h_BSD for weight_BS, h_BSD in zip(weight_TBS, states, strict=False))
    assert isinstance(total, Tensor)
    return total.to(states[0].dtype)
