"""Decide which steps to skip, by the losses and gradient norms of the steps that were taken."""

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Literal, NamedTuple

from mythos.config.guard import GuardConfig

Reason = Literal["not_finite", "loss_spike", "gradient_spike"]
_LEAST_DEVIATION = 0.02
"""Smallest deviation relative to the mean: after a flat stretch, ordinary steps must not become spikes."""


class Verdict(NamedTuple):
    """Reason why a step is skipped, with the figure and its limit."""

    reason: Reason
    figure: float
    limit: float


def judge(
    loss: float, grad_norm: float, losses: Sequence[float], grad_norms: Sequence[float], config: GuardConfig
) -> Verdict | None:
    """Return why a step is skipped, or None for a step that is taken.

    Spikes as in OLMo 2 (arXiv 2501.00656, section 3): more than ``sigmas`` standard deviations above the mean.

    Args:
        losses: those of earlier steps that were taken, at most ``config.window``; likewise ``grad_norms``.
    """
    if not math.isfinite(loss) or not math.isfinite(grad_norm):
        return Verdict("not_finite", loss if not math.isfinite(loss) else grad_norm, math.inf)
    if config.sigmas is None or len(losses) < config.num_history_steps:
        return None
    if loss > (limit := _limit(losses, config.sigmas)):
        return Verdict("loss_spike", loss, limit)
    if grad_norm > (limit := _limit(grad_norms, config.sigmas)):
        return Verdict("gradient_spike", grad_norm, limit)
    return None


def _limit(values: Sequence[float], sigmas: float) -> float:
    mean = fmean(values)
    return mean + sigmas * max(pstdev(values, mean), _LEAST_DEVIATION * abs(mean))
