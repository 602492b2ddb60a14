from collections.abc import Callable

import pytest
import torch
from helpers import fill, gradients, relative_error
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mythos.config.model import MoEConfig
from mythos.moe import dispatch, fused
from mythos.moe.experts import Experts
from mythos.moe.layer import MoE
from mythos.moe.router import Routing

Path = Callable[[Tensor, Routing, Tensor, Experts], Tensor]


def from_tokens(x_ND: Tensor, routing: Routing, counts_E: Tensor, experts: Experts) -> Tensor:
    order = fused.sort_assignments(routing.expert_indices_NK, counts_E)
    return fused.from_tokens(x_ND, routing.weight_NK, order, *experts.fused_weights(x_ND.dtype))


def from_rows(x_ND: Tensor, routing: Routing, counts_E: Tensor, experts: Experts) -> Tensor:
    order = fused.sort_assignments(routing.expert_indices_NK, counts_E)
    row_MD = x_ND[order.token_M.long()]
    row_MD = fused.from_rows(row_MD, order.end_E, *experts.fused_weights(x_ND.dtype))
    return (row_MD[order.row_NK.long()] * routing.weight_NK[..., None]).sum(1)


def make_layer(num_experts: int, num_active: int, dim: int = 40, hidden_dim: int = 24) -> MoE:
    layer = MoE(MoEConfig(num_experts=num_experts, num_active=num_active, hidden_dim=hidden_dim), dim=dim)
    fill(layer)
    return layer


def run(layer: MoE, path: Path, x: Tensor, bias: Tensor, recompute: bool = False) -> dict[str, Tensor]:
    """Return the output and every gradient."""
    layer.zero_grad(set_to_none=True)
    layer.run_experts = path
    leaf = x.clone().requires_grad_()

    def forward(x_BSD: Tensor) -> Tensor:
        return layer(x_BSD, bias)[0]

    y = checkpoint(forward, leaf, use_reentrant=False) if recompute else forward(leaf)
    (y * x.cos()).sum().backward()
    return {"y": y.detach(), "x": leaf.grad, **gradients(layer)}


@pytest.mark.parametrize("path", [from_tokens, from_rows])
@pytest.mark.parametrize("num_tokens", [1, 7, 33])
@pytest.mark.parametrize(("num_experts", "num_active"), [(5, 2), (7, 7), (64, 3)])
def test_fused_equals_naive(path: Path, num_tokens: int, num_experts: int, num_active: int) -> None:
    layer = make_layer(num_experts, num_active)
    x = torch.randn(1, num_tokens, 40, generator=torch.Generator().manual_seed(1))
    expected = run(layer, dispatch.naive, x, torch.zeros(num_experts))
    result = run(layer, path, x, torch.zeros(num_experts))
    assert result.keys() == expected.keys()
    assert "router.gate.weight" in result
    for name, tensor in expected.items():
        assert relative_error(result[name], tensor) < 1e-6, name


@pytest.mark.parametrize("path", [from_tokens, from_rows])
def test_fused_equals_naive_when_two_experts_receive_every_token(path: Path) -> None:
    layer = make_layer(6, 2)
    x = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(1))
    bias = torch.tensor([0.0, 9.0, 0.0, 9.0, 0.0, 0.0])
    expected, result = run(layer, dispatch.naive, x, bias), run(layer, path, x, bias)
    assert result["experts.w2"].flatten(1).norm(dim=1).gt(0).tolist() == [False, True, False, True, False, False]
    for name, tensor in expected.items():
        assert relative_error(result[name], tensor) < 1e-6, name


@pytest.mark.parametrize("path", [from_tokens, from_rows])
def test_recomputation_changes_nothing(path: Path) -> None:
    layer = make_layer(5, 2)
    x = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(1))
    saved, recomputed = (run(layer, path, x, torch.zeros(5), recompute) for recompute in (False, True))
    for name, tensor in saved.items():
        assert torch.equal(recomputed[name], tensor), name


def test_bytes_saved_for_the_backward() -> None:
    num_tokens, num_active, dim, hidden_dim = 33, 3, 40, 24
    layer = make_layer(5, num_active)
    x_ND = torch.randn(num_tokens, dim, requires_grad=True)
    routing, stats = layer.router(x_ND[None], torch.zeros(5))
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        from_tokens(x_ND, routing, stats.counts_E, layer.experts)
    routed = num_tokens * num_active
    indices = 4 * (4 * routed) + 4 * 5  # weights, rows, tokens and assignments; ends
    weights = 3 * 5 * dim * hidden_dim * 4
    assert sum(saved.values()) == num_tokens * dim * 4 + routed * 2 * hidden_dim * 4 + indices + weights


def test_nothing_is_saved_without_gradients() -> None:
    layer = make_layer(5, 2)
    x_ND = torch.randn(9, 40)
    with torch.no_grad():
        routing, stats = layer.router(x_ND[None], torch.zeros(5))
        order = fused.sort_assignments(routing.expert_indices_NK, stats.counts_E)
        weights, copies = layer.experts.fused_weights(torch.float32)
        y_ND, saved = fused._experts(x_ND, routing.weight_NK.flatten(), *order, *weights, None, *copies, False)
    assert saved.numel() == 0
    assert torch.equal(y_ND, from_tokens(x_ND, routing, stats.counts_E, layer.experts).detach())


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bfloat16_on_a_gpu_is_as_close_to_fp32_as_plain(weights: torch.dtype, compiled: bool, recompute: bool) -> None:
    layer = make_layer(9, 3, dim=192, hidden_dim=320).cuda()
    x = torch.randn(1, 777, 192, generator=torch.Generator().manual_seed(1)).cuda()
    bias = torch.zeros(9, device="cuda")
    bias[4] = -9.0  # an expert without tokens
    exact = run(layer, dispatch.naive, x, bias)
    layer.to(weights)
    x = x.to(weights)
    if compiled:
        torch.compiler.reset()
        layer.compile(dynamic=False, fullgraph=True)
    with torch.autocast("cuda", torch.bfloat16, enabled=weights == torch.float32):
        result = run(layer, dispatch.grouped, x, bias, recompute)
        plain = run(layer, dispatch.plain, x, bias)
    assert layer.experts.is_fused(x, torch.bfloat16)
    for name, tensor in exact.items():
        if name == "router.gate.weight":
            continue  # a rounded input changes the routing at ties, in both paths
        assert relative_error(result[name], tensor) < 2e-2 + 1.2 * relative_error(plain[name], tensor), name
        assert relative_error(result[name], plain[name]) < 2e-2, name


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_sharing_weights_changes_nothing(compiled: bool) -> None:
    layer = make_layer(9, 3, dim=192, hidden_dim=320).cuda()
    x = torch.randn(1, 777, 192, generator=torch.Generator().manual_seed(1)).cuda()
    if compiled:
        torch.compiler.reset()
        layer.compile(dynamic=False, fullgraph=True)

    def grads_of_two_micro_batches(shares: bool) -> dict[str, Tensor]:
        layer.zero_grad(set_to_none=True)
        for _ in range(2):
            if shares:
                layer.experts.share(torch.bfloat16)
            with torch.autocast("cuda", torch.bfloat16):
                y = x
                for _ in range(3):
                    y = y + layer(y, torch.zeros(9, device="cuda"))[0]
            y.sum().backward()
        layer.experts.unshare()
        return gradients(layer)

    expected, result = (grads_of_two_micro_batches(shares) for shares in (False, True))
    for name, tensor in expected.items():
        assert relative_error(result[name], tensor) < 1e-6, name


def test_shared_weight_copies_are_updated_with_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    experts = make_layer(5, 2).experts
    experts.share(torch.bfloat16)
    assert experts.shared is None  # no fused kernels on this device
    monkeypatch.setattr(Experts, "is_fused", lambda *_: True)
    for scale in (1, 3):
        with torch.no_grad():
            experts.w3.mul_(scale)
        experts.share(torch.bfloat16)
        weights, copies = experts.fused_weights(torch.bfloat16)
        experts.share(torch.bfloat16)
        assert copies is experts.fused_weights(torch.bfloat16)[1]
        assert weights == fused.Weights(experts.w1, experts.w2, experts.w3)  # no accumulators on a CPU
        assert torch.equal(copies.w13[1], experts.w3.bfloat16())
        assert experts.fused_weights(torch.float32)[1].w2_EDF.dtype == torch.float32
        experts.unshare()
        assert experts.shared is None


def test_weight_copies_have_the_rows_of_gate_and_value_in_halves_or_interleaved() -> None:
    weights = make_layer(5, 2).experts.weights
    halves, interleaved = (
        fused.copy_weights(weights, torch.bfloat16, is_interleaved).w13 for is_interleaved in (False, True)
    )
    for index, weight in enumerate((weights.w1_EFD, weights.w3_EFD)):
        assert torch.equal(halves[index], weight.bfloat16())
        assert torch.equal(interleaved[:, index::2], weight.bfloat16())
