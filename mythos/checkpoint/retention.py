"""Select the checkpoints of a run that are kept."""

import math
from collections.abc import Mapping

from mythos.checkpoint.manifest import BEST_METRIC
from mythos.checkpoint.names import step_of
from mythos.config.run import CheckpointConfig


def kept(metrics: Mapping[str, Mapping[str, float]], settings: CheckpointConfig) -> set[str]:
    """Names of the last checkpoints, the multiples of ``keep_every`` and the best; a tie keeps the later one.

    Args:
        metrics: ``Manifest.metrics`` of every checkpoint by its name, as ``step_name`` returns it.
    """
    names = sorted(metrics, key=step_of)
    chosen = set(names[-settings.keep_last :])
    if settings.keep_every is not None:
        chosen |= {name for name in names if step_of(name) % settings.keep_every == 0}
    measured = [name for name in reversed(names) if math.isfinite(metrics[name].get(BEST_METRIC, math.nan))]
    chosen |= set(sorted(measured, key=lambda name: metrics[name][BEST_METRIC])[: settings.keep_best])
    return chosen
