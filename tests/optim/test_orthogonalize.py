"""Singular values after Newton-Schulz, compared with the exact singular value decomposition in float64."""

import pytest
import torch
from torch import Tensor

from mythos.optim.orthogonalize import orthogonalize, polar_express_coefficients

SHAPES = [(7, 7), (3, 17), (17, 3), (1, 9), (9, 1), (1, 1), (64, 80)]
BAND = (0.84, 1.13)


def random_batch(num_rows: int, num_columns: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(num_rows + 1000 * num_columns)
    return torch.randn(3, num_rows, num_columns, generator=generator, dtype=torch.float64).to(dtype)


def with_singular_values(values: Tensor) -> Tensor:
    """A batch of one square matrix with random singular vectors."""
    u, _, vh = torch.linalg.svd(random_batch(len(values), len(values))[0])
    return (u * values @ vh)[None]


def exact(x_BMN: Tensor, num_steps: int) -> Tensor:
    """U p(S) V^T, the polynomial applied to the singular values one matrix at a time."""
    results = []
    for x_MN in x_BMN.double():
        u, s, vh = torch.linalg.svd(x_MN, full_matrices=False)
        s = s / (1.01 * x_MN.norm())
        for a, b, c in polar_express_coefficients(num_steps):
            s = a * s + b * s**3 + c * s**5
        results.append(u * s @ vh)
    return torch.stack(results)


@pytest.mark.parametrize("num_steps", [1, 5, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_polynomial_of_the_singular_values(shape: tuple[int, int], num_steps: int) -> None:
    x = random_batch(*shape)
    assert (orthogonalize(x, num_steps) - exact(x, num_steps)).abs().max() < 1e-11


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_close_to_float64(shape: tuple[int, int]) -> None:
    x = random_batch(*shape, dtype=torch.float32)
    result = orthogonalize(x, 5)
    assert result.dtype == torch.float32
    assert (result - exact(x, 5)).abs().max() < 2e-5


def test_five_steps_bring_singular_values_into_the_band() -> None:
    values = torch.logspace(0, -3, 200, dtype=torch.float64)
    x = with_singular_values(values)
    kept = int((values / values.norm() >= 1e-3).sum())
    result = torch.linalg.svdvals(orthogonalize(x, 5)[0])
    assert 100 < kept < 200
    assert result[:kept].min() > BAND[0]
    assert result.max() < BAND[1]


def test_the_band_holds_for_every_singular_value_above_a_thousandth() -> None:
    s = torch.logspace(-3, 0, 100_000, dtype=torch.float64) / 1.01
    for a, b, c in polar_express_coefficients(5):
        s = a * s + b * s**3 + c * s**5
    assert BAND[0] < s.min() < BAND[0] + 0.01
    assert BAND[1] - 0.01 < s.max() < BAND[1]


def test_more_steps_end_at_the_polar_factor() -> None:
    x = random_batch(5, 11)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    assert (orthogonalize(x, 9) - u @ vh).abs().max() < 1e-12


def test_zero_stays_zero_and_noise_stays_small() -> None:
    x = torch.zeros(2, 4, 6)
    x[1] = 1e-12
    result = orthogonalize(x, 5)
    assert torch.equal(result[0], x[0])
    assert 0 < result[1].abs().max() < 0.02


def test_matrices_of_a_batch_are_independent() -> None:
    x = random_batch(6, 10)
    scaled = x * torch.tensor([1.0, 1e-4, 1e4], dtype=x.dtype)[:, None, None]
    assert (orthogonalize(scaled, 5) - orthogonalize(x, 5)).abs().max() < 1e-12


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SHAPES, (256, 1024)])
def test_bfloat16_stays_in_a_wider_band(shape: tuple[int, int]) -> None:
    num_singular_values = min(shape)
    x = random_batch(*shape, dtype=torch.float32)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    x = u * s.clamp_min(0.1 * s[:, :1])[:, None] @ vh
    result = torch.linalg.svdvals(orthogonalize(x.cuda(), 5).cpu())
    assert result.shape == (3, num_singular_values)
    assert result.min() > 0.7
    assert result.max() < 1.2
