"""Exit rules: over all loops at once, as evaluation applies them, and loop by loop, as decoding does."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.loop.change import relative_acceleration, relative_change


def output_divergence(new_NV: Tensor, old_NV: Tensor) -> Tensor:
    """Return KL(output, previous output) in nats, ``[...]``, from log-probabilities ``[..., V]``."""
    return (new_NV.exp() * (new_NV - old_NV)).sum(-1)


def num_stable_loops(num_before_N: Tensor, new_N: Tensor, old_N: Tensor) -> Tensor:
    """Return the number of consecutive loops with the same prediction, from that of the previous loop."""
    return torch.where(new_N == old_N, num_before_N + 1, 1)


def first_loop(stop_TN: Tensor) -> Tensor:
    """Return the index of the first loop whose condition holds, or of the last loop, ``[N]``."""
    never_N = ~stop_TN.any(0)
    return stop_TN.int().argmax(0).masked_fill(never_N, stop_TN.shape[0] - 1)


def by_quantile(p_TN: Tensor, quantile: float) -> Tensor:
    """Exit once the sum of the exit distribution reaches ``quantile`` (Ouro)."""
    return first_loop(p_TN.cumsum(0) >= quantile)


def by_output_divergence(log_prob_TNV: Tensor, threshold: float) -> Tensor:
    """Exit once KL(output, previous output) falls below ``threshold`` nats."""
    return _first_of(len(log_prob_TNV), output_divergence(log_prob_TNV[1:], log_prob_TNV[:-1]) < threshold)


def by_relative_change(state_TND: Tensor, threshold: float) -> Tensor:
    """Exit once |h' - h| / |h'| falls below ``threshold``."""
    return _first_of(len(state_TND), relative_change(state_TND[1:], state_TND[:-1]) < threshold)


def by_relative_acceleration(state_TND: Tensor, threshold: float) -> Tensor:
    """Exit once |h'' - 2 h' + h| / |h''| falls below ``threshold`` (arXiv 2509.23314)."""
    acceleration_TN = relative_acceleration(state_TND[2:], state_TND[1:-1], state_TND[:-2])
    return _first_of(len(state_TND), acceleration_TN < threshold)


def by_stable_argmax(prediction_TN: Tensor, num_loops: int) -> Tensor:
    """Exit once the prediction has stayed the same over ``num_loops`` loops."""
    stable_TN = torch.ones_like(prediction_TN, dtype=torch.int64)
    for loop in range(1, prediction_TN.shape[0]):
        stable_TN[loop] = num_stable_loops(stable_TN[loop - 1], prediction_TN[loop], prediction_TN[loop - 1])
    return first_loop(stable_TN >= num_loops)


def _first_of(num_loops: int, stop_MN: Tensor) -> Tensor:
    """Return ``first_loop`` of the conditions of the last M loops; earlier ones cannot hold."""
    return first_loop(torch.cat((stop_MN.new_zeros(num_loops - len(stop_MN), stop_MN.shape[1]), stop_MN)))


class Seen(NamedTuple):
    """Inputs of a rule after a loop; coda and head run only for rules that read logits."""

    state_BSD: Tensor
    exit_mass: Callable[[], Tensor]
    """Probability of having exited by now, ``[B, S]``; for models with a halting gate."""
    logits: Callable[[], Tensor]
    """``[B, S, V]`` if the loop ended here."""


Stops = Callable[[Seen], Tensor]
"""Called once after each loop; True, ``[B, S]``, where a token may exit."""


def stops(rule: ExitRule) -> Stops:
    """Return the rule with an empty history, for one forward."""
    match rule.kind:
        case "quantile":
            return lambda seen: seen.exit_mass() >= rule.threshold
        case "output_divergence":
            return _Below(rule.threshold, 2, lambda seen: seen.logits().log_softmax(-1), output_divergence)
        case "relative_change":
            return _Below(rule.threshold, 2, lambda seen: seen.state_BSD.float(), relative_change)
        case "relative_acceleration":
            return _Below(rule.threshold, 3, lambda seen: seen.state_BSD.float(), relative_acceleration)
        case "stable_argmax":
            return _StableArgmax(int(rule.threshold))
        case _:
            raise AssertionError(rule.kind)


class _Below:
    """Exit where a figure of the last ``num_values`` values, latest first, lies below the threshold."""

    def __init__(
        self, threshold: float, num_values: int, value: Callable[[Seen], Tensor], figure: Callable[..., Tensor]
    ) -> None:
        self.threshold = threshold
        self.num_values = num_values
        self.value = value
        self.figure = figure
        self.values: list[Tensor] = []

    def __call__(self, seen: Seen) -> Tensor:
        self.values = [self.value(seen), *self.values[: self.num_values - 1]]
        if len(self.values) < self.num_values:
            return torch.zeros_like(self.values[0][..., 0], dtype=torch.bool)
        return self.figure(*self.values) < self.threshold


class _StableArgmax:
    """Exit where the prediction has stayed the same over ``num_loops`` loops."""

    def __init__(self, num_loops: int) -> None:
        self.num_loops = num_loops
        self.prediction_BS: Tensor | None = None
        self.stable_BS: Tensor | None = None

    def __call__(self, seen: Seen) -> Tensor:
        old, new = self.prediction_BS, seen.logits().argmax(-1)
        self.prediction_BS = new
        if old is None or self.stable_BS is None:
            self.stable_BS = torch.ones_like(new)
        else:
            self.stable_BS = num_stable_loops(self.stable_BS, new, old)
        return self.stable_BS >= self.num_loops
