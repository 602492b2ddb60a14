"""How large gradients and updates are, by parameter group: of whole parameters, the same on every rank.

What is read here depends on who holds the gradients and weights; the names and units do not.
"""

from collections import defaultdict
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.optim.groups import group_name

_MAX_SAMPLES = 2**16
"""Numbers of one parameter that an update norm looks at, evenly spaced."""


def squared_norms(trainer: pl.Trainer, module: Any) -> dict[str, Tensor]:
    """Squared norm of the gradient of each parameter group that has one, fp32 scalars on the device.

    To be called when the gradients of the step are complete and not yet clipped.
    """
    del trainer
    gradients: defaultdict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in module.model.named_parameters():
        if parameter.grad is not None:
            gradients[group_name(name)].append(parameter.grad)
    return {group: torch.stack(torch._foreach_norm(parts)).square().sum() for group, parts in gradients.items()}


def sample_weights(trainer: pl.Trainer, module: Any) -> dict[str, list[Tensor]]:
    """Copies of evenly spaced weights of each trained parameter, by group; small parameters whole.

    Each sample is scaled so that its squares add up to about those of the whole parameter. A copy of all weights
    would need the memory of a second model.
    """
    del trainer
    samples: defaultdict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in module.model.named_parameters():
        if parameter.requires_grad:
            stride = -(-parameter.numel() // _MAX_SAMPLES)
            stride += 1 - stride % 2  # an odd stride visits every column of a matrix of even width
            sample = parameter.detach().flatten()[::stride].float()
            samples[group_name(name)].append(sample * (parameter.numel() / sample.numel()) ** 0.5)
    return dict(samples)


def update_norms(before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """|w' - w| / |w| of each group, from two samples of its weights."""
    norms = {}
    for group, old in before.items():
        changes = torch._foreach_sub(after[group], old)
        norms[group] = _norm(changes) / _norm(old).clamp(min=1e-12)
    return norms


def _norm(parts: Any) -> Tensor:
    return torch.stack(torch._foreach_norm(list(parts))).norm()
