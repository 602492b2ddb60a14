"""Per-token distributions over passes. In training they weigh; nothing ever leaves the loop early on one rank."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mythos.config.halting import ActHalting, PonderHalting
from mythos.layers.transfer import to_device


class HaltingGate(nn.Module):
    """logit(lambda) = w . silu(W norm(h)) + b + logit(initial), in fp32, from the state after a pass."""

    def __init__(self, dim: int, hidden_dim: int, initial_probability: float) -> None:
        super().__init__()
        self.offset = math.log(initial_probability / (1 - initial_probability))
        self.w1 = nn.Parameter(torch.empty(hidden_dim, dim))
        self.w2 = nn.Parameter(torch.empty(1, hidden_dim))
        self.bias = nn.Parameter(torch.empty(1))

    def forward(self, h_BSD: Tensor) -> Tensor:
        """Logits of stopping after this pass, ``[B, S]``."""
        with torch.autocast(h_BSD.device.type, enabled=False):
            x_BSD = functional.rms_norm(h_BSD.float(), h_BSD.shape[-1:])
            hidden = functional.silu(functional.linear(x_BSD, self.w1.float()))
            return functional.linear(hidden, self.w2.float(), self.bias.float()).squeeze(-1) + self.offset


def stick_breaking(logit_TBS: Tensor) -> Tensor:
    """p(t) = lambda_t prod_{s<t} (1 - lambda_s); the last pass takes what is left, so p sums to one."""
    log_stop = functional.logsigmoid(logit_TBS)
    log_left = functional.logsigmoid(-logit_TBS).cumsum(0)
    log_reach = torch.cat((torch.zeros_like(log_left[:1]), log_left[:-1]))
    return torch.cat((log_stop[:-1] + log_reach[:-1], log_reach[-1:])).exp()


def adaptive_computation_time(logit_TBS: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """ACT's weights ``[T, B, S]``, which sum to one, and its ponder cost ``[B, S]``: passes plus remainder."""
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
    """All weight on the first pass that brings the sum to one half; the gradient is that of ``p_TBS``."""
    median_BS = (p_TBS.cumsum(0) < 0.5).sum(0).clamp(max=p_TBS.shape[0] - 1)
    hard_TBS = functional.one_hot(median_BS, p_TBS.shape[0]).movedim(-1, 0).to(p_TBS.dtype)
    return hard_TBS + p_TBS - p_TBS.detach()


def prior(config: PonderHalting, num_loops: int) -> Tensor:
    """The distribution over passes that p is drawn towards, ``[T]``."""
    if config.prior == "uniform":
        return torch.full((num_loops,), 1 / num_loops)
    going_on = (1 - config.prior_probability) ** torch.arange(num_loops)
    mass = config.prior_probability * going_on
    mass[-1] = going_on[-1]
    return mass


def divergence_from_prior(p_TBS: Tensor, prior_T: Tensor) -> Tensor:
    """KL(p, prior) of each token, ``[B, S]``, in nats."""
    log_prior = to_device(prior_T, p_TBS.device).to(p_TBS.dtype).log()[:, None, None]
    return (torch.special.xlogy(p_TBS, p_TBS) - p_TBS * log_prior).sum(0)


def continuation_target(nll_TBS: Tensor, sharpness: float, margin: float) -> Tensor:
    """Targets of 1 - lambda for passes 1 .. T-1: how clearly each pass improved on the one before (Ouro, stage 2)."""
    improvement_TBS = (nll_TBS[:-1] - nll_TBS[1:]).clamp(min=0)
    return torch.sigmoid(sharpness * (improvement_TBS - margin)).detach()


def penalty_weight(config: ActHalting | PonderHalting, step: int, num_steps: int) -> float:
    """The weight of the halting penalty at a step: risen over the warm-up, then towards its final value."""
    final = config.final_weight if isinstance(config, PonderHalting) else None
    target = config.weight if final is None else config.weight + (final - config.weight) * step / max(1, num_steps - 1)
    return target * min(1.0, (step + 1) / (config.num_warmup_steps + 1))
