"""Compare the kernels of heads with the operations that they replace."""

import os

import pytest
import torch
from helpers import relative_error

from mythos.layers.norm import RMSNorm
from mythos.layers.rope import rotate, rotation_at

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton")
from mythos.layers import heads  # noqa: E402
from mythos.layers.kernels import heads as kernels  # noqa: E402

DEVICE, DTYPE = ("cuda", torch.bfloat16) if ON_GPU else ("cpu", torch.float32)
TOLERANCE = 5e-3 if ON_GPU else 1e-6  # bf16: one rounding of each result


@pytest.mark.parametrize(("num_heads", "width"), [(1, 16), (3, 64), (8, 128)])
@pytest.mark.parametrize("length", [1, 7, 33])
def test_norm_and_rotation_in_one_kernel(num_heads: int, width: int, length: int) -> None:
    generator = torch.Generator().manual_seed(width + length)
    x, grad = (torch.randn(2, length, num_heads, width, generator=generator).to(DEVICE, DTYPE) for _ in range(2))
    norm = RMSNorm(width, 1e-5)
    norm.weight.data = 1 + 0.3 * torch.randn(width, generator=generator)
    norm.to(DEVICE)
    positions = torch.stack((torch.arange(length), torch.arange(length) + 5)).to(DEVICE)
    rotation = rotation_at(positions, width, 100.0)

    exact_x = x.double().requires_grad_()
    exact = rotate(norm(exact_x.float()), rotation)
    exact.backward(grad.float())
    result = kernels.norm_and_rotate(x, norm.weight.detach(), *rotation, norm.eps)
    grad_x, grad_weight = kernels.norm_and_rotate_backward(grad, x, norm.weight.detach(), *rotation, norm.eps)

    assert result.dtype == grad_x.dtype == DTYPE
    assert relative_error(result, exact) < TOLERANCE
    assert relative_error(grad_x, exact_x.grad) < TOLERANCE
    assert relative_error(grad_weight, norm.weight.grad) < TOLERANCE


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_heads_on_a_gpu_equal_the_naive_path(compiled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(128, 1e-5)
    norm.weight.data = 1 + 0.3 * torch.randn(128, generator=generator)
    norm.cuda()
    x = torch.randn(2, 77, 3, 128, generator=generator).cuda()
    rotation = rotation_at(torch.arange(77, device="cuda").expand(2, 77), 128, 1e4)
    run = torch.compile(heads.norm_and_rotate, fullgraph=True) if compiled else heads.norm_and_rotate
    results = []
    for function in (run, lambda x, norm, rotation: rotate(norm(x), rotation)):
        leaf = x.clone().requires_grad_()
        norm.zero_grad()
        y = function(leaf, norm, rotation)
        y.square().mul(torch.arange(128, device="cuda")).sum().backward()
        results.append((y, leaf.grad, norm.weight.grad))
    for ours, naive in zip(*results, strict=True):
        assert relative_error(ours, naive) < 2e-6
