"""Muon for hidden matrices and AdamW for everything else, in one optimiser object."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from mythos.optim.orthogonalize import orthogonalize

MAX_BATCH_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Elements orthogonalised at a time: they fit a CPU's cache, or keep a GPU busy within 1 GiB."""


class _Matrices(NamedTuple):
    """One parameter, or some of its experts, as a batch of matrices that share its memory."""

    weight_BMN: Tensor
    grad_BMN: Tensor
    momentum_BMN: Tensor


class MuonAdamW(torch.optim.Optimizer):
    """Updates each group by its ``algorithm``, with the group's lr and weight_decay.

    ``adamw`` (Loshchilov and Hutter 2019, arXiv 1711.05101): torch's fused kernel.

    ``muon`` (Jordan 2024, kellerjordan.github.io/posts/muon), for every matrix W [M, N] with gradient G; a
    parameter [E, M, N] is E matrices:
        m <- momentum m + (1 - momentum) G
        W <- (1 - lr weight_decay) W - lr sqrt(max(1, M / N)) orthogonalize((1 - momentum) G + momentum m)

    The state has the parameters' dtype, fp32 or fp64, and consists of tensors, so that torch's ``state_dict`` and
    ``load_state_dict`` contain all of it. A step does not synchronise with the device.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        eps: float,
        momentum: float,
        num_newton_schulz_steps: int,
    ) -> None:
        defaults = {
            "betas": betas,
            "eps": eps,
            "momentum": momentum,
            "num_newton_schulz_steps": num_newton_schulz_steps,
            # load_state_dict reads it: the fused kernel needs its step counts on the parameters' device.
            "fused": True,
        }
        super().__init__(groups, defaults)
        for group in self.param_groups:
            assert group["algorithm"] in ("adamw", "muon"), group["algorithm"]
            for parameter in group["params"]:
                assert parameter.dtype in (torch.float32, torch.float64), parameter.dtype
                assert group["algorithm"] == "adamw" or parameter.ndim in (2, 3), parameter.shape

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, and return the result of ``closure``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters and group["algorithm"] == "muon":
                self._step_muon(group, parameters)
            elif parameters:
                self._step_adamw(group, parameters)
        return loss

    def _step_adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [_gradient(parameter) for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _step_muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
        max_elements = MAX_BATCH_ELEMENTS[parameters[0].device.type]
        pieces = [
            piece
            for parameter in parameters
            for piece in _split(parameter, _gradient(parameter), self.state[parameter]["momentum"], max_elements)
        ]
        for batch in _batches_of_equal_shape(pieces, max_elements):
            _update(
                batch,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                num_steps=group["num_newton_schulz_steps"],
            )


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _split(weight: Tensor, grad: Tensor, momentum: Tensor, max_elements: int) -> list[_Matrices]:
    """Return views of a parameter, its gradient and its momentum, of at most ``max_elements`` or one matrix each."""
    matrices = [tensor if tensor.ndim == 3 else tensor[None] for tensor in (weight, grad, momentum)]
    num_matrices = max(1, max_elements // matrices[0][0].numel())
    chunks = (tensor.split(num_matrices) for tensor in matrices)
    return [_Matrices(*chunk) for chunk in zip(*chunks, strict=True)]


def _batches_of_equal_shape(pieces: list[_Matrices], max_elements: int) -> list[list[_Matrices]]:
    """Return lists of pieces with matrices of equal shape, of at most ``max_elements`` or one piece each."""
    by_shape: dict[torch.Size, list[_Matrices]] = defaultdict(list)
    for piece in pieces:
        by_shape[piece.weight_BMN.shape[1:]].append(piece)
    batches: list[list[_Matrices]] = []
    for same in by_shape.values():
        num_elements = max_elements
        for piece in same:
            num_elements += piece.weight_BMN.numel()
            if num_elements > max_elements:
                batches.append([])
                num_elements = piece.weight_BMN.numel()
            batches[-1].append(piece)
    return batches


def _update(batch: list[_Matrices], *, lr: float, weight_decay: float, momentum: float, num_steps: int) -> None:
    """Take one Muon step for matrices of equal shape, orthogonalised as one batch; gradients do not change."""
    weights, grads, momenta = (list(tensors) for tensors in zip(*batch, strict=True))
    torch._foreach_lerp_(momenta, grads, 1 - momentum)
    nesterov_BMN = torch.cat(torch._foreach_lerp(grads, momenta, momentum))
    direction_BMN = orthogonalize(nesterov_BMN, num_steps)
    num_rows, num_columns = direction_BMN.shape[1:]
    directions = direction_BMN.split([weight.shape[0] for weight in weights])
    if weight_decay:
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
    torch._foreach_add_(weights, directions, alpha=-lr * max(1, num_rows / num_columns) ** 0.5)
