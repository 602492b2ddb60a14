"""Per-token distributions over loops. In training they weigh losses; no token exits early there."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from mythos.config.halting import PonderHalting
from mythos.layers.transfer import to_device


def stick_breaking(logit_TBS: Tensor) -> Tensor:
    """Return p(t) = lambda_t prod_{s<t} (1 - lambda_s), ``[T, B, S]``; the last loop takes the remainder."""
    return log_stick_breaking(logit_TBS).exp()


def log_stick_breaking(logit_TBS: Tensor) -> Tensor:
    """Return log p, ``[T, B, S]``, finite with finite gradients also where p itself is zero in fp32."""
    log_stop = functional.logsigmoid(logit_TBS)
    log_remaining = functional.logsigmoid(-logit_TBS).cumsum(0)
    log_reach = torch.cat((torch.zeros_like(log_remaining[:1]), log_remaining[:-1]))
    return torch.cat((log_stop[:-1] + log_reach[:-1], log_reach[-1:]))


def adaptive_computation_time(logit_TBS: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return ACT's weights ``[T, B, S]``, which sum to one, and its ponder cost ``[B, S]``: loops plus remainder."""
    unit_TBS = logit_TBS.sigmoid()
    before_TBS = torch.cat((torch.zeros_like(unit_TBS[:1]), unit_TBS.cumsum(0)[:-1]))
    stops_TBS = before_TBS + unit_TBS >= 1 - threshold
    stops_TBS = torch.cat((stops_TBS[:-1], torch.ones_like(stops_TBS[-1:])))
    is_over_TBS = before_TBS >= 1 - threshold
    is_last_TBS = stops_TBS & ~is_over_TBS
    weight_TBS = torch.where(is_last_TBS, 1 - before_TBS, unit_TBS).masked_fill(is_over_TBS, 0.0)
    num_loops_BS = (~is_over_TBS).sum(0)
    remainder_BS = (weight_TBS * is_last_TBS).sum(0)
    return weight_TBS, num_loops_BS + remainder_BS


def exit_at_median(p_TBS: Tensor) -> Tensor:
    """Return all weight on the first loop at which the sum reaches one half, with the gradient of ``p_TBS``."""
    median_BS = (p_TBS.cumsum(0) < 0.5).sum(0).clamp(max=p_TBS.shape[0] - 1)
    hard_TBS = functional.one_hot(median_BS, p_TBS.shape[0]).movedim(-1, 0).to(p_TBS.dtype)
    return hard_TBS + p_TBS - p_TBS.detach()


def log_prior(config: PonderHalting, num_loops: int) -> Tensor:
    """Return the logarithm of the prior distribution over loops, ``[T]``, in closed form."""
    if config.prior == "uniform":
        return torch.full((num_loops,), -math.log(num_loops))
    log_reach = torch.arange(num_loops, dtype=torch.float64) * math.log1p(-config.prior_probability)
    log_mass = math.log(config.prior_probability) + log_reach
    log_mass[-1] = log_reach[-1]
    return log_mass.float()


def divergence_from_prior(log_p_TBS: Tensor, log_prior_T: Tensor) -> Tensor:
    """Return KL(p, prior) of each token, ``[B, S]``, in nats; p log p would have no gradient at p = 0."""
    log_ratio_TBS = log_p_TBS - to_device(log_prior_T, log_p_TBS.device).to(log_p_TBS.dtype)[:, None, None]
    return (log_p_TBS.exp() * log_ratio_TBS).sum(0)


def continuation_target(nll_TBS: Tensor, sharpness: float, margin: float) -> Tensor:
    """Return targets of 1 - lambda for loops 1 .. T-1, ``[T - 1, B, S]``, without gradient (Ouro, stage 2).

    A target is near one where a loop clearly improves on the previous one.
    """
    improvement_TBS = (nll_TBS[:-1] - nll_TBS[1:]).clamp(min=0)
    return torch.sigmoid(sharpness * (improvement_TBS - margin)).detach()
