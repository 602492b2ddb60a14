"""Orthogonalise matrices by matrix products alone."""

from itertools import chain, islice, repeat

import torch
from torch import Tensor

SAFETY_FACTOR = 1.01
"""Margin above 1 for the largest singular value, which rounding in bfloat16 may raise by 0.4%."""

_MINIMAX = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
_LIMIT = (1.875, -1.25, 0.375)

SMALLEST_NORM = 1e-7
"""A matrix of smaller Frobenius norm is rounding noise and is not scaled up to full size; zero stays zero."""


def polar_express_coefficients(num_steps: int) -> list[tuple[float, float, float]]:
    """Return (a, b, c) of p(s) = a s + b s^3 + c s^5, one triple for each step.

    The polynomials of Polar Express (Amsel et al. 2025, arXiv 2505.16932, algorithm 1): each is the optimal
    next factor for singular values in [1e-3, 1], given the previous ones. All but the limit are evaluated at
    s / ``SAFETY_FACTOR``.
    """
    safe = [(a / SAFETY_FACTOR, b / SAFETY_FACTOR**3, c / SAFETY_FACTOR**5) for a, b, c in _MINIMAX]
    return list(islice(chain(safe, repeat(_LIMIT)), num_steps))


def orthogonalize(x_BMN: Tensor, num_steps: int) -> Tensor:
    """Return an approximation of U V^T for each matrix U S V^T of the batch, in its shape and dtype.

    After 5 steps singular values that were above 1e-3 of the Frobenius norm lie in [0.84, 1.13]; a much
    smaller one has grown by a factor of 967. Products are computed in bfloat16 on CUDA and in the dtype of
    ``x_BMN`` elsewhere.
    """
    is_tall = x_BMN.shape[-2] > x_BMN.shape[-1]
    wide = x_BMN.mT if is_tall else x_BMN
    norm_B11 = torch.linalg.matrix_norm(wide, keepdim=True)
    wide = wide / (SAFETY_FACTOR * norm_B11).clamp_min(SMALLEST_NORM)
    if wide.is_cuda:
        wide = wide.bfloat16()
    for a, b, c in polar_express_coefficients(num_steps):
        gram = wide @ wide.mT
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        wide = torch.baddbmm(wide, factor, wide, beta=a)
    return (wide.mT if is_tall else wide).to(x_BMN.dtype)
