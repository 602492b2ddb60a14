"""Jacobian growth: the growth of a small change of the state over one more loop."""

import torch
from torch import Tensor

from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.run import ExpertIndices, Step

_EPSILON = 1e-2
"""Size of the change relative to the state: above fp32's rounding, below the blocks' curvature."""


def jacobian_growth(
    step: Step, state: LoopState, inputs: LoopInputs, num_iterations: int, direction_BSD: Tensor
) -> Tensor:
    """Return |F(h + v) - F(h)|^2 / |v|^2 of each sequence, for a small v from ``num_iterations`` power iterations.

    Power iteration on finite differences needs no second derivatives, so every attention and expert kernel can be
    used. Experts are those of F(h), and state and e are constants: the gradient reaches the core's weights only.
    """
    state, inputs = state.map(Tensor.detach), inputs._replace(e_BSD=inputs.e_BSD.detach())
    epsilon_B11 = _EPSILON * state.h_BSD.float().norm(dim=(1, 2), keepdim=True).clamp(min=1e-6)

    def scaled(direction_BSD: Tensor) -> Tensor:
        return epsilon_B11 * direction_BSD / direction_BSD.norm(dim=(1, 2), keepdim=True).clamp(min=1e-20)

    def mapped(h_BSD: Tensor, expert_indices: ExpertIndices | None) -> Tensor:
        return step(state._replace(h_BSD=h_BSD), inputs, expert_indices)[0].h_BSD

    with torch.no_grad():
        base, stats = step(state, inputs, None)
        for _ in range(num_iterations):
            changed_BSD = mapped(state.h_BSD + scaled(direction_BSD), stats.expert_indices)
            direction_BSD = changed_BSD.float() - base.h_BSD.float()
        v_BSD = scaled(direction_BSD)
    new_BSD = mapped(state.h_BSD + v_BSD, stats.expert_indices)
    base_BSD = mapped(state.h_BSD, stats.expert_indices)
    return ((new_BSD - base_BSD).float() / epsilon_B11).square().sum((1, 2))
