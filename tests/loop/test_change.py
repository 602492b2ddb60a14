import math

import torch

from mythos.loop.change import curvature_ratio, relative_acceleration, relative_change, update_norm

SHAPE = (2, 5, 7)


def states(num: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(num)]


def norm(vector) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in vector.double()))


def by_token(function) -> torch.Tensor:
    """A figure of every token, computed one by one in double precision."""
    return torch.tensor([[function(row, token) for token in range(SHAPE[1])] for row in range(SHAPE[0])])


def test_changes_equal_their_formulas() -> None:
    h, new, newer = states(3)
    expected = by_token(lambda b, s: norm(new[b, s] - h[b, s]) / norm(new[b, s]))
    torch.testing.assert_close(relative_change(new, h), expected, rtol=1e-5, atol=0, check_dtype=False)
    expected = by_token(lambda b, s: norm(new[b, s] - h[b, s]) / norm(h[b, s]))
    torch.testing.assert_close(update_norm(new, h), expected, rtol=1e-5, atol=0, check_dtype=False)
    expected = by_token(lambda b, s: norm(newer[b, s] - 2 * new[b, s] + h[b, s]) / norm(newer[b, s]))
    result = relative_acceleration(newer, new, h)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=0, check_dtype=False)
    expected = by_token(lambda b, s: norm(newer[b, s] - 2 * new[b, s] + h[b, s]) / norm(newer[b, s] - new[b, s]))
    result = curvature_ratio(newer - new, new - h)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=0, check_dtype=False)


def test_curvature_ratio_separates_a_drift_from_a_cycle() -> None:
    (step,) = states(1)
    assert curvature_ratio(step, step).abs().max() == 0
    torch.testing.assert_close(curvature_ratio(step, -step), torch.full(SHAPE[:2], 2.0))
