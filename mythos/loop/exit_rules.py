"""The rules of ``exits`` as decoding applies them: pass after pass, each remembering only what it needs."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mythos.config.decoding import ExitRule

_TINY = 1e-12


class Seen(NamedTuple):
    """What a rule may look at after a pass; coda and head are run only for rules that read logits."""

    state_BSD: Tensor
    exit_mass: Callable[[], Tensor]
    """Probability of having left by now, ``[B, S]``; for models with a halting gate."""
    logits: Callable[[], Tensor]
    """``[B, S, V]`` if the loop ended here."""


Stops = Callable[[Seen], Tensor]
"""Called once after each pass; True, ``[B, S]``, where a token may leave."""


def stops(rule: ExitRule) -> Stops:
    """The rule with an empty memory, for one run through the loop."""
    match rule.kind:
        case "quantile":
            return lambda seen: seen.exit_mass() >= rule.threshold
        case "output_divergence":
            return _OutputDivergence(rule.threshold)
        case "relative_change":
            return _RelativeChange(rule.threshold)
        case "relative_acceleration":
            return _RelativeAcceleration(rule.threshold)
        case "stable_argmax":
            return _StableArgmax(int(rule.threshold))
        case _:
            raise AssertionError(rule.kind)


class _OutputDivergence:
    """KL(output, output before) < threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.old_BSV: Tensor | None = None

    def __call__(self, seen: Seen) -> Tensor:
        old, new = self.old_BSV, seen.logits().log_softmax(-1)
        self.old_BSV = new
        if old is None:
            return torch.zeros_like(new[..., 0], dtype=torch.bool)
        return (new.exp() * (new - old)).sum(-1) < self.threshold


class _RelativeChange:
    """|h' - h| / |h'| < threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.old_BSD: Tensor | None = None

    def __call__(self, seen: Seen) -> Tensor:
        old, new = self.old_BSD, seen.state_BSD.float()
        self.old_BSD = new
        if old is None:
            return torch.zeros_like(new[..., 0], dtype=torch.bool)
        return (new - old).norm(dim=-1) / new.norm(dim=-1).clamp(min=_TINY) < self.threshold


class _RelativeAcceleration:
    """|h'' - 2 h' + h| / |h''| < threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.states: list[Tensor] = []

    def __call__(self, seen: Seen) -> Tensor:
        self.states = [*self.states[-2:], seen.state_BSD.float()]
        new = self.states[-1]
        if len(self.states) < 3:
            return torch.zeros_like(new[..., 0], dtype=torch.bool)
        bend = new - 2 * self.states[1] + self.states[0]
        return bend.norm(dim=-1) / new.norm(dim=-1).clamp(min=_TINY) < self.threshold


class _StableArgmax:
    """The likeliest token has stayed the same over ``num_loops`` passes."""

    def __init__(self, num_loops: int) -> None:
        self.num_loops = num_loops
        self.old_BS: Tensor | None = None
        self.same_BS: Tensor | None = None

    def __call__(self, seen: Seen) -> Tensor:
        old, new = self.old_BS, seen.logits().argmax(-1)
        self.old_BS = new
        if old is None or self.same_BS is None:
            self.same_BS = torch.ones_like(new)
        else:
            self.same_BS = torch.where(new == old, self.same_BS + 1, 1)
        return self.same_BS >= self.num_loops
