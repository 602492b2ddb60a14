"""Injection of the prelude's output into the state, u = inject(h, e), and the update rules."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from mythos.config.injection import DECAY_EXPONENTS, AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.model import ModelConfig

Blocks = Callable[[Tensor], Tensor]
LARGEST_DECAY = 1 - 2**-20
"""Bound on A: the state always decays, even if the parameters diverge."""
_MAX_PARAMETER = 60.0  # its exponential and products with it stay finite in fp32


class Diagonal(nn.Module):
    """u = A h + G B e with A = exp(-dt exp(a)), elementwise, dt = softplus(b) (Parcae, arXiv 2604.12946).

    A lies in (0, LARGEST_DECAY] for every value of the parameters: the exponent is clamped, and A is computed and
    applied in fp32 outside autocast. A state in bf16 has the bound 1 - 2^-8, above which A h would round to h. G is
    dt (Euler) or (1 - A) / exp(a) (exact zero-order hold).
    """

    def __init__(self, config: DiagonalInjection, model: ModelConfig) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.empty(model.dim))
        self.dt_bias = nn.Parameter(torch.empty(model.dim))
        self.input_matrix = nn.Parameter(torch.empty(model.dim, model.dim))
        self.exact_hold = config.discretization == "zoh"

    def forward(self, h_BSD: Tensor, e_BSD: Tensor) -> Tensor:
        """Return the injected state, in the dtype of ``h_BSD``."""
        written_BSD = functional.linear(e_BSD, self.input_matrix)
        with torch.autocast(h_BSD.device.type, enabled=False):
            decay_D, gain_D = self.decay_and_gain(h_BSD.dtype)
            u_BSD = decay_D * h_BSD.float() + gain_D * written_BSD.float()
        return u_BSD.to(h_BSD.dtype)

    def decay_and_gain(self, state_dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Return A and G for a state of this dtype, fp32, ``[dim]`` each."""
        bounds = DECAY_EXPONENTS["bf16" if state_dtype == torch.bfloat16 else "fp32"]
        rate = self.log_rate.float().clamp(max=_MAX_PARAMETER).exp()
        dt = functional.softplus(self.dt_bias.float().clamp(max=_MAX_PARAMETER))
        exponent = (dt * rate).clamp(*bounds)
        decay = (-exponent).exp()
        gain = dt * (-torch.expm1(-exponent) / exponent) if self.exact_hold else dt
        return decay, gain

    def figures(self) -> dict[str, Tensor]:
        """Return decay and input gain, scalars."""
        decay_D, gain_D = self.decay_and_gain()
        return {
            "decay_max": decay_D.max(),
            "decay_mean": decay_D.mean(),
            "input_gain": _input_gain(gain_D[:, None] * self.input_matrix),
        }


class Linear(nn.Module):
    """u = W [h; e], with W unconstrained (Huginn's adapter, arXiv 2502.05171)."""

    def __init__(self, config: LinearInjection, model: ModelConfig) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.empty(model.dim, 2 * model.dim))

    def forward(self, h_BSD: Tensor, e_BSD: Tensor) -> Tensor:
        """Return the injected state, in the dtype of ``h_BSD``."""
        both = torch.cat((h_BSD, e_BSD.to(h_BSD.dtype)), dim=-1)
        return functional.linear(both, self.matrix).to(h_BSD.dtype)

    def figures(self) -> dict[str, Tensor]:
        """Return the input gain, a scalar."""
        return {"input_gain": _input_gain(self.matrix[:, self.matrix.shape[0] :])}


class Additive(nn.Module):
    """u = h + e."""

    def __init__(self, config: AdditiveInjection, model: ModelConfig) -> None:
        super().__init__()

    def forward(self, h_BSD: Tensor, e_BSD: Tensor) -> Tensor:
        """Return the injected state, in the dtype of ``h_BSD``."""
        return h_BSD + e_BSD.to(h_BSD.dtype)

    def figures(self) -> dict[str, Tensor]:
        """Return nothing, as there are no parameters."""
        return {}


def inject_then_blocks(e_BSD: Tensor, inject: nn.Module, norm: nn.Module, blocks: Blocks, h_BSD: Tensor) -> Tensor:
    """Return h' = blocks(u), u = inject(h, e)."""
    return blocks(inject(h_BSD, e_BSD))


def parallel(e_BSD: Tensor, inject: nn.Module, norm: nn.Module, blocks: Blocks, h_BSD: Tensor) -> Tensor:
    """Return h' = u + R(x), x = norm(h + e), R(x) = blocks(x) - x."""
    u_BSD = inject(h_BSD, e_BSD)
    x_BSD = norm(h_BSD + e_BSD)
    return u_BSD + (blocks(x_BSD) - x_BSD)


UPDATE_RULES = {"inject_then_blocks": inject_then_blocks, "parallel": parallel}
"""By ``model.injection.update_rule``."""


def _input_gain(into_DD: Tensor) -> Tensor:
    """Return the root mean square of the injected input, for a prelude output of unit variance."""
    return into_DD.square().sum(1).mean().sqrt()


def build_injection(model: ModelConfig) -> Diagonal | Linear | Additive:
    """Build the injection of a configuration."""
    match model.injection:
        case DiagonalInjection() as config:
            return Diagonal(config, model)
        case LinearInjection() as config:
            return Linear(config, model)
        case AdditiveInjection() as config:
            return Additive(config, model)


def initial_dt(decay: float) -> float:
    """Return the step size that gives A = ``decay`` at unit rate."""
    return -math.log(decay)


def initialize_dt_bias(weight_D: Tensor, config: DiagonalInjection, generator: Generator) -> None:
    """Fill in the inverse of softplus of the initial step size."""
    weight_D.fill_(math.log(math.expm1(initial_dt(config.initial_decay))))


def initialize_adapter(weight_DE: Tensor, config: LinearInjection, generator: Generator) -> None:
    """Fill in W = [A I, dt I]."""
    identity = torch.eye(weight_DE.shape[0])
    weight_DE.copy_(torch.cat((config.initial_decay * identity, initial_dt(config.initial_decay) * identity), dim=1))
