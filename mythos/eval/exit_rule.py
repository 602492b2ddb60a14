"""An exit rule by name: when a token may leave the loop, decided from what it shows after every pass."""

import difflib
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from mythos.config.base import ConfigError
from mythos.eval.read_out import ReadOut
from mythos.loop.exits import by_quantile, by_stable_choice, first_pass

DEFAULT_THRESHOLDS: Final = {
    "quantile": 0.5,
    "output_divergence": 5e-4,
    "relative_change": 0.05,
    "second_difference": 0.05,
    "stable_choice": 3.0,
}
"""Of each rule of ``loop.exits``; that of the output divergence is Huginn's."""
THRESHOLDS: Final = {
    "quantile": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    "output_divergence": (1e-5, 1e-4, 5e-4, 2e-3, 0.01, 0.03, 0.1, 0.3, 1.0),
    "relative_change": (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
    "second_difference": (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
    "stable_choice": (2.0, 3.0, 4.0, 6.0, 8.0),
}
"""What a sweep of a rule tries, from eager or strict to the other end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitRule:
    """One of the rules of ``loop.exits`` with its threshold.

    Raises:
        ConfigError: no such rule, or a threshold outside its range.
    """

    kind: str
    threshold: float

    def __post_init__(self) -> None:
        if self.kind not in DEFAULT_THRESHOLDS:
            near = difflib.get_close_matches(self.kind, DEFAULT_THRESHOLDS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            known = ", ".join(DEFAULT_THRESHOLDS)
            raise ConfigError(f"exit_rule: {self.kind!r} was given; the rules are {known}{hint}")
        if not self.threshold > 0 or (self.kind == "quantile" and self.threshold > 1):
            limits = "above 0 and at most 1" if self.kind == "quantile" else "above 0"
            raise ConfigError(f"exit_threshold: {self.threshold:g} was given; that of {self.kind} lies {limits}.")
        if self.kind == "stable_choice" and self.threshold != int(self.threshold):
            raise ConfigError(f"exit_threshold: {self.threshold:g} was given; stable_choice counts whole passes.")

    def leave(self, read: ReadOut) -> Tensor:
        """The 0-based pass after which each token leaves, ``[N]``; the last one where the rule never fires."""
        match self.kind:
            case "quantile":
                if read.halting_TN is None:
                    raise ConfigError(
                        "exit_rule: quantile was given, but the run's halting is fixed, so that it has learned no exit "
                        "distribution; choose another rule, or train with halting=ponder."
                    )
                return by_quantile(read.halting_TN, self.threshold)
            case "stable_choice":
                return by_stable_choice(read.choice_TN, int(self.threshold))
            case "output_divergence":
                return first_pass(read.output_divergence_TN < self.threshold)
            case "relative_change":
                return first_pass(read.relative_change_TN < self.threshold)
            case "second_difference":
                return first_pass(read.second_difference_TN < self.threshold)
            case _:
                raise AssertionError(self.kind)


def chosen_rule(kind: str | None, threshold: float | None) -> ExitRule | None:
    """The rule that a user names, with its own threshold where none is given.

    Raises:
        ConfigError: see ``ExitRule``; or a threshold without a rule.
    """
    if kind is None:
        if threshold is not None:
            raise ConfigError(f"exit_threshold: {threshold:g} was given without an exit_rule; name the rule too.")
        return None
    return ExitRule(kind=kind, threshold=DEFAULT_THRESHOLDS.get(kind, 1.0) if threshold is None else threshold)
