"""Configuration of an exported Mythos model."""

from typing import Any

from transformers import PretrainedConfig


class MythosConfig(PretrainedConfig):
    """What ``config.json`` says.

    Args:
        architecture: the configuration of the model as it was trained.
        halting: the configuration of its halting.
        num_loops: passes over the core unless a call says otherwise.
        exit_rule: when a token leaves the loop unless a call says otherwise: quantile, output_divergence,
            relative_change, relative_acceleration, stable_argmax, or None for never before the last pass.
        exit_threshold: of the rule; None for the rule's usual one.
        cache_policy: what passes remember of earlier tokens: all, last, mean or mod-M.
    """

    model_type = "mythos"

    def __init__(
        self,
        architecture: dict[str, Any] | None = None,
        halting: dict[str, Any] | None = None,
        num_loops: int = 1,
        exit_rule: str | None = None,
        exit_threshold: float | None = None,
        cache_policy: str = "all",
        **kwargs: Any,
    ) -> None:
        self.architecture = architecture or {}
        self.halting = halting or {"kind": "fixed"}
        self.num_loops = num_loops
        self.exit_rule = exit_rule
        self.exit_threshold = exit_threshold
        self.cache_policy = cache_policy
        super().__init__(**kwargs)
