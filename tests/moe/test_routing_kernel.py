"""Compare the routing kernel with ``router.route``: on a GPU, else with Triton's interpreter."""

import os

import pytest
import torch
from helpers import relative_error

from mythos.config.model import MoEConfig
from mythos.moe.router import Router, route

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton")
from mythos.moe.kernels import routing  # noqa: E402

DEVICE = "cuda" if ON_GPU else "cpu"
DTYPES = [torch.float32, torch.bfloat16] if ON_GPU else [torch.float32]  # the interpreter multiplies bf16 as integers


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_tokens", "num_experts", "num_active", "per_token"),
    [(1, 3, 1, False), (77, 20, 5, True), (130, 160, 8, False)],
)
def test_kernel_equals_the_reference(
    score: str, dtype: torch.dtype, num_tokens: int, num_experts: int, num_active: int, per_token: bool
) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    x = torch.randn(num_tokens, 128, generator=generator).to(DEVICE, dtype)
    gate = (torch.randn(num_experts, 128, generator=generator) * 128**-0.5).to(DEVICE)
    shape = (num_tokens, num_experts) if per_token else (num_experts,)
    bias = (torch.randn(shape, generator=generator) * 0.1).to(DEVICE)
    config = MoEConfig(num_experts=num_experts, num_active=num_active, hidden_dim=8, num_shared=0, score=score)
    exact = x.double() @ gate.double().T
    expected = route(exact, bias.double(), config)

    logits, expert = routing.route(x, gate, bias, num_active, score == "sigmoid", True)
    assert relative_error(logits, exact) < 1e-6
    assert torch.equal(expert.long(), expected.expert_indices_NK)
    assert routing.route(x, gate, bias, num_active, score == "sigmoid", False)[1].shape == (num_tokens, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_router_on_a_gpu_equals_the_router_on_a_cpu(compiled: bool) -> None:
    config = MoEConfig(num_experts=24, num_active=3, hidden_dim=8, num_shared=0)
    router = Router(config, 192)
    torch.nn.init.normal_(router.gate.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 99, 192, generator=torch.Generator().manual_seed(1))
    results = []
    for device in ("cpu", "cuda"):
        router.to(device).zero_grad()
        leaf = x.to(device).detach().requires_grad_()
        run = torch.compile(router, fullgraph=True) if compiled and device == "cuda" else router
        result, stats = run(leaf, torch.zeros(24, device=device))
        (result.weight_NK.square().sum() + stats.z_loss + stats.balance_loss).backward()
        parts = (result.weight_NK, result.expert_indices_NK, *stats, leaf.grad, router.gate.weight.grad.clone())
        results.append([part.detach().cpu().double() for part in parts])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert relative_error(on_gpu, on_cpu) < 2e-5
