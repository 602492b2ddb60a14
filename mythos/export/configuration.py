"""Configuration of an exported Mythos model."""

from typing import Any

from transformers import PretrainedConfig


class MythosConfig(PretrainedConfig):
    """Contents of ``config.json``. Arguments of a call override the last four.

    Args:
        architecture: configuration of the model as it was trained.
        halting: configuration of its halting.
        num_loops: number of loops over the core.
        exit_rule: rule by which a token exits the loop: quantile, output_divergence, relative_change,
            relative_acceleration, stable_argmax, or None to run all loops.
        exit_threshold: threshold of the rule; None for the rule's default.
        cache_policy: which keys and values of earlier tokens the cache keeps: all, last, mean or mod-M.
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
