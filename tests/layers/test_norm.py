import torch

from mythos.layers.norm import RMSNorm


def test_norm_follows_its_formula_and_keeps_the_dtype() -> None:
    norm = RMSNorm(5, eps=1e-6)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected, rtol=1e-6, atol=1e-7)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
