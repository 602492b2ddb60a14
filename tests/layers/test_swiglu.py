"""Compare SwiGLU as one operation with PyTorch's operations, on a Hopper GPU (on a CPU: ``test_shared``)."""

import pytest
import torch
from helpers import fill, gradients, relative_error
from torch import Tensor

from mythos.layers import swiglu
from mythos.layers.ffn import SwiGLU
from mythos.layers.kernels import HAS_QUACK
from mythos.layers.shared import share, unshare

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HAS_QUACK, reason="quack-kernels is not installed")]


@pytest.mark.parametrize(("num_tokens", "dim", "hidden_dim"), [(1, 8, 8), (777, 192, 328), (4096, 1024, 2752)])
def test_kernels_equal_the_reference(
    num_tokens: int, dim: int, hidden_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both round the same values to bf16, so that only near ties differ."""
    layer = SwiGLU(dim, hidden_dim)
    fill(layer)
    layer.cuda()
    x_ND = torch.randn(num_tokens, dim, generator=torch.Generator().manual_seed(1)).cuda()

    def step() -> dict[str, Tensor]:
        layer.zero_grad(set_to_none=True)
        share(layer)
        assert layer.shared is not None
        inputs = x_ND.clone().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16):
            with torch.no_grad():
                without_gradients = layer(inputs)
            y_ND = layer(inputs)
        y_ND.backward(torch.ones_like(y_ND))
        unshare(layer)
        return gradients(layer) | {"x": inputs.grad, "y": y_ND.detach(), "without_gradients": without_gradients}

    result = step()
    monkeypatch.setattr(swiglu, "is_available", lambda *_: True)
    monkeypatch.setattr(swiglu, "supports_gated", lambda *_: False)
    for name, expected in step().items():
        assert relative_error(result[name], expected) < 6e-3, name
