import torch

from mythos.layers.rope import rotate, rotation_at


def test_rotation_keeps_norms_and_depends_on_distance_only() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(query_position: int, key_position: int) -> torch.Tensor:
        rotated_query = rotate(query, rotation_at(torch.tensor([[query_position]]), 8, 100.0))
        rotated_key = rotate(key, rotation_at(torch.tensor([[key_position]]), 8, 100.0))
        torch.testing.assert_close(rotated_query.norm(), query.norm(), rtol=1e-6, atol=0)
        return (rotated_query * rotated_key).sum()

    torch.testing.assert_close(score(9, 5), score(4, 0), rtol=1e-5, atol=1e-6)
    assert (score(9, 5) - score(9, 4)).abs() > 1e-3


def test_rotation_is_complex_multiplication() -> None:
    x = torch.randn(2, 5, 3, 6, generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]])
    angle = positions[:, :, None, None] * 10.0 ** (-torch.arange(0, 6, 2) / 6)
    expected = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angle), angle)
    result = rotate(x, rotation_at(positions, 6, 10.0))
    torch.testing.assert_close(result, torch.cat((expected.real, expected.imag), -1), rtol=1e-5, atol=1e-6)
