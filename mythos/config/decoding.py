"""Options of decoding: when a token exits the loop, and which loops share a cache."""

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

ExitKind = Literal["quantile", "output_divergence", "relative_change", "relative_acceleration", "stable_argmax"]
EXIT_KINDS: Final = get_args(ExitKind)
DEFAULT_THRESHOLDS: Final[dict[str, float]] = {
    "quantile": 0.9,
    "output_divergence": 5e-4,
    "relative_change": 0.03,
    "relative_acceleration": 0.03,
    "stable_argmax": 5,
}
"""Starting points. 5e-4, 0.03 and 5 are Huginn's numbers (arXiv 2502.05171), but its code takes KL(previous, output),
and counts repetitions: its 5 are 6 loops of the same prediction."""


@dataclass(frozen=True)
class ExitRule:
    """When a token exits the loop; ``mythos/loop/exits/rules.py`` has the formulas."""

    kind: str
    threshold: float
    """A share of the exit distribution (quantile), loops (stable_argmax), nats or a relative change (the others)."""

    def __post_init__(self) -> None:
        if self.kind not in EXIT_KINDS:
            raise ValueError(f"exit_rule: {self.kind!r} was given; it is one of {', '.join(EXIT_KINDS)}.")
        if not math.isfinite(self.threshold) or self.threshold <= 0:
            raise ValueError(f"exit_threshold: {self.threshold} was given; it must be finite and above 0.")
        if self.kind == "quantile" and self.threshold > 1:
            raise ValueError(f"exit_threshold: {self.threshold} was given; a quantile is at most 1.")
        if self.kind == "stable_argmax" and self.threshold != int(self.threshold):
            raise ValueError(f"exit_threshold: {self.threshold} was given; stable_argmax counts whole loops.")


def exit_rule(kind: str | None, threshold: float | None = None) -> ExitRule | None:
    """Return a rule from its name and threshold, each of which may be None.

    Raises:
        ValueError: an unknown name, or a threshold that the rule cannot have.
    """
    if kind is None:
        if threshold is not None:
            raise ValueError(f"exit_threshold: {threshold} was given without exit_rule; name the rule too.")
        return None
    return ExitRule(kind, DEFAULT_THRESHOLDS.get(kind, 1.0) if threshold is None else threshold)


def num_cache_slots(policy: str, num_loops: int) -> int:
    """Return the number of cache slots of each core layer: loop t writes to and reads from slot t mod this number.

    ``all`` has one slot for each loop; ``mod-m`` has m, each with the last loop that wrote to it (Huginn, arXiv
    2502.05171); ``last`` has one with the last loop, ``mean`` one with the mean over loops (Ouro, arXiv 2510.25741).

    Raises:
        ValueError: an unknown policy.
    """
    if policy == "all":
        return num_loops
    if policy in ("last", "mean"):
        return 1
    if modulus := re.fullmatch(r"mod-([1-9]\d*)", policy):
        return min(int(modulus.group(1)), num_loops)
    raise ValueError(f"cache_policy: {policy!r} was given; it is all, last, mean or mod-M, such as mod-4.")


def check_num_loops(num_loops: int, max_loops: int) -> None:
    """Refuse loop counts that are far beyond a model's per-loop tables.

    Raises:
        ValueError: fewer than 1, or more than four times the rows of the per-loop tables.
    """
    if not 1 <= num_loops <= 4 * max_loops:
        raise ValueError(
            f"num_loops: {num_loops} was given; it must be at least 1, and at most {4 * max_loops} "
            f"(four times the model's max_loops of {max_loops})."
        )


def check_rule_fits(rule: ExitRule | None, halting: str) -> None:
    """Refuse a rule that reads an exit distribution where the model has none.

    Raises:
        ValueError: the rule is ``quantile`` and the model's halting is fixed.
    """
    if rule is not None and rule.kind == "quantile" and halting == "fixed":
        raise ValueError(
            "exit_rule: quantile reads a halting gate, and this model was trained with halting fixed; choose one of "
            f"{', '.join(EXIT_KINDS[1:])}."
        )


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How text is generated.

    Raises:
        ValueError: a field is out of range.
    """

    num_tokens: int = 100
    """Number of new tokens."""
    temperature: float = 0.8
    """Divides the logits before sampling; 0 takes the most probable token."""
    top_k: int | None = 50
    """Sample among the k most probable tokens; None among all."""
    top_p: float | None = None
    """Sample among the fewest tokens that have this probability together; None among all."""
    rule: ExitRule | None = None
    """Rule by which a token exits the loop; None runs all loops."""
    cache_policy: str = "all"
    """See ``num_cache_slots``."""
    seed: int = 0
    """Seed of the sampling."""

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ValueError(f"num_tokens: {self.num_tokens} was given; it must be at least 1.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} was given; it must be finite and at least 0.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: {self.top_k} was given; it must be at least 1.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} was given; it must be above 0 and at most 1.")
        num_cache_slots(self.cache_policy, 1)
