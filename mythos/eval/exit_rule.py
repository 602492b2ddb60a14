"""Exit rules applied to the metrics of all loops: after which loop each token exits, at any number of thresholds."""

from typing import Final

from torch import Tensor

from mythos.config.base import ConfigError
from mythos.config.decoding import EXIT_KINDS, ExitRule, check_rule_fits, exit_rule
from mythos.eval.token_metrics import TokenMetrics
from mythos.loop.exits.rules import by_quantile, by_stable_argmax, first_loop

THRESHOLDS: Final = {
    "quantile": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    "output_divergence": (1e-5, 1e-4, 5e-4, 2e-3, 0.01, 0.03, 0.1, 0.3, 1.0),
    "relative_change": (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
    "relative_acceleration": (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
    "stable_argmax": (2.0, 3.0, 4.0, 6.0, 8.0),
}
"""Thresholds that a sweep evaluates, by rule."""


def exit_loops(rule: ExitRule, metrics: TokenMetrics) -> Tensor:
    """The 0-based loop after which each token exits, ``[N]``; the last one where the rule never fires."""
    match rule.kind:
        case "quantile":
            assert metrics.halting_TN is not None, "fixed halting has no exit distribution"
            return by_quantile(metrics.halting_TN, rule.threshold)
        case "stable_argmax":
            return by_stable_argmax(metrics.prediction_TN, int(rule.threshold))
        case "output_divergence":
            return first_loop(metrics.output_divergence_TN < rule.threshold)
        case "relative_change":
            return first_loop(metrics.relative_change_TN < rule.threshold)
        case "relative_acceleration":
            return first_loop(metrics.relative_acceleration_TN < rule.threshold)
        case _:
            raise AssertionError(rule.kind)


def rules_for(halting: str) -> list[ExitRule]:
    """Every rule that a kind of halting supports, at all its thresholds."""
    kinds = [kind for kind in EXIT_KINDS if kind != "quantile" or halting != "fixed"]
    return [ExitRule(kind, threshold) for kind in kinds for threshold in THRESHOLDS[kind]]


def chosen_rule(kind: str | None, threshold: float | None) -> ExitRule | None:
    """The rule of a user's options, None without one.

    Raises:
        ConfigError: see ``config.decoding.exit_rule``.
    """
    try:
        return exit_rule(kind, threshold)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_rule(rule: ExitRule | None, halting: str) -> None:
    """Check that the model supports the rule.

    Raises:
        ConfigError: see ``config.decoding.check_rule_fits``.
    """
    try:
        check_rule_fits(rule, halting)
    except ValueError as error:
        raise ConfigError(str(error)) from None
