"""Compare gradients of shared weights with plain autograd: with loops, micro-batches, recomputation, compilation."""

from collections.abc import Iterator

import pytest
import torch
from helpers import MODELS, fill, gradients, model_config, random_batch, random_model, relative_error
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mythos.layers import ffn, projection, swiglu
from mythos.layers.ffn import SwiGLU
from mythos.layers.projection import Projection
from mythos.layers.shared import share, unshare
from mythos.loop.remat import Remat
from mythos.model.block import Block
from mythos.model.mythos import Mythos
from mythos.moe import experts
from mythos.moe.experts import Experts


@pytest.fixture(autouse=True)
def sharing_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Share all weights in fp32, where only rounding differs from autograd; experts run the reference kernels."""
    for module in (ffn, projection, experts):
        monkeypatch.setattr(module, "can_accumulate", lambda weight, dtype: weight.requires_grad)
    monkeypatch.setattr(Experts, "is_fused", lambda *_: True)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def step_gradients(model: Mythos, shares: bool, batch_sizes: tuple[int, ...] = (2, 3, 5)) -> dict[str, Tensor]:
    """Return the gradients of three micro-batches, the last one with one more loop."""
    model.zero_grad(set_to_none=True)
    for index, size in enumerate(batch_sizes):
        if shares:
            share(model, torch.float32)
        batch = random_batch(model.config, size, num_documents=2, seed=index)
        model(batch, 3 + index // 2, 2, noise_seed=0).nll_XBS.mean().backward()
    unshare(model)
    return gradients(model)


@pytest.mark.parametrize("remat", ["none", "loop", "block"])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_has_the_gradients_of_autograd(name: str, remat: str) -> None:
    model = random_model(model_config(name))
    model.core.remat = Remat(remat)
    expected, result = (step_gradients(model, shares) for shares in (False, True))
    assert result.keys() == expected.keys()
    for key, gradient in expected.items():
        assert relative_error(result[key], gradient) < 1e-6, key


def test_compiled_blocks_have_the_gradients_of_autograd() -> None:
    model = random_model(model_config("debug"))
    batch_sizes = (3, 3, 3)  # other sizes would be recompiled
    expected = step_gradients(model, False, batch_sizes)
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(backend="aot_eager", dynamic=False, fullgraph=True)
    result = step_gradients(model, True, batch_sizes)
    for key, gradient in expected.items():
        assert relative_error(result[key], gradient) < 1e-6, key


def test_the_accumulator_becomes_the_gradient_without_a_copy_and_hooks_run_once_a_backward() -> None:
    layer = Projection(5, 3)
    seen = []
    layer.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.data_ptr()))
    for _ in range(2):
        layer.share(torch.float32)
        address = layer.shared.accumulators.accumulators[0].data_ptr()
        (layer(torch.ones(2, 5)) + layer(torch.ones(2, 5))).sum().backward()
        assert seen.pop() == layer.weight.grad.data_ptr() == address
        assert not seen
    assert torch.equal(layer.weight.grad, torch.full((3, 5), 8.0))


def test_accumulators_restart_at_zero_after_an_engine_took_the_gradients() -> None:
    layer = Projection(5, 3)
    for _ in range(2):
        layer.share(torch.float32)
        layer(torch.ones(2, 5)).sum().backward()
        taken, layer.weight.grad = layer.weight.grad, None
        assert torch.equal(taken, torch.full((3, 5), 2.0))


def test_a_backward_that_does_not_reach_the_weights_loses_no_gradient() -> None:
    layer = Projection(5, 3)
    for reaches in (True, False):
        layer.share(torch.float32)
        y = layer(torch.ones(2, 5, requires_grad=True))
        (y.sum() if reaches else torch.ones((), requires_grad=True)).backward()
    assert torch.equal(layer.weight.grad, torch.full((3, 5), 2.0))


def test_one_weight_copy_is_shared_until_unshare() -> None:
    layer = SwiGLU(6, 4)
    share(layer, torch.bfloat16)
    copy = layer.w2.shared.copy_OI
    share(layer, torch.bfloat16)
    assert layer.w2.shared.copy_OI is copy
    assert copy.dtype == torch.bfloat16
    x = torch.randn(2, 6)
    expected = functional.linear(x, layer.w1.weight)
    assert torch.equal(layer.w1(x), expected)  # in fp32, outside autocast
    unshare(layer)
    assert layer.w2.shared is None
    assert "shared" not in vars(layer.w2)  # otherwise compiled code would be recompiled


@pytest.mark.parametrize("kind", ["eager", "compiled", "checkpointed"])
def test_swiglu_as_one_operation_has_the_gradients_of_autograd(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three micro-batches of three loops with gradients, after one without."""
    monkeypatch.setattr(swiglu, "is_available", lambda *_: True)
    layer = SwiGLU(20, 28)
    fill(layer)
    if kind == "compiled":
        layer.compile(backend="aot_eager", dynamic=False, fullgraph=True)

    def step(shares: bool) -> dict[str, Tensor]:
        layer.zero_grad(set_to_none=True)
        inputs = torch.randn(3, 4, 7, 20, generator=torch.Generator().manual_seed(1)).requires_grad_()
        for x in inputs:
            if shares:
                share(layer, torch.float32)
            with torch.no_grad():
                y = x + layer(x)
            y = y + x
            for _ in range(3):
                change = checkpoint(layer, y, use_reentrant=False) if kind == "checkpointed" else layer(y)
                y = y + change
            y.square().sum().backward()
        assert (layer.shared is not None) == shares
        unshare(layer)
        return gradients(layer) | {"x": inputs.grad}

    expected, result = step(False), step(True)
    for name, gradient in expected.items():
        assert relative_error(result[name], gradient) < 1e-6, name


def test_swiglu_as_one_operation_shares_weight_copies_until_unshare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swiglu, "is_available", lambda *_: True)
    layer, x = SwiGLU(6, 4), torch.randn(3, 5, 6)
    expected = layer(x)
    share(layer, torch.float32)
    copies = layer.shared.weight_copies
    assert torch.equal(copies.w13_GD[0::2], layer.w1.weight)
    assert torch.equal(copies.w13_GD[1::2], layer.w3.weight)
    assert layer.w1.shared is layer.w2.shared is layer.w3.shared is None
    assert relative_error(layer(x), expected) < 1e-6
    share(layer, torch.float32)
    assert layer.shared.weight_copies is copies
    unshare(layer)
    assert "shared" not in vars(layer)


def test_gradients_move_into_interleaved_accumulators_and_are_restored_without_a_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swiglu, "is_available", lambda *_: True)
    layer = SwiGLU(6, 4)
    fill(layer)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    share(layer, torch.float32)
    unshare(layer)
    assert layer.w1.weight.grad is None
    layer(x).sum().backward()
    once = gradients(layer)
    for _ in range(2):  # no backward has delivered the first accumulators
        share(layer, torch.float32)
        assert layer.w1.weight.grad is layer.w3.weight.grad is None
    unshare(layer)
    assert all(torch.equal(gradient, once[name]) for name, gradient in gradients(layer).items())
    share(layer, torch.float32)
    layer(x).sum().backward()
    unshare(layer)
    for name, gradient in gradients(layer).items():
        assert gradient.is_contiguous()
        assert relative_error(gradient, 2 * once[name]) < 1e-6, name


def test_frozen_weights_are_not_shared() -> None:
    layer = Projection(5, 3).requires_grad_(False)
    layer.share(torch.float32)
    assert layer.shared is None


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_products_in_bfloat16_accumulate_in_fp32(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Product by product; the bf16 gradients that autograd sums are less accurate."""
    monkeypatch.undo()
    monkeypatch.setattr(swiglu, "is_available", lambda *_: False)
    layer = SwiGLU(192, 320)
    fill(layer)
    layer.cuda()
    x = torch.randn(777, 192, generator=torch.Generator().manual_seed(1)).cuda()

    def accumulators(shares: bool, dtype: torch.dtype) -> dict[str, Tensor]:
        layer.zero_grad(set_to_none=True)
        if shares:
            share(layer)
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            y = x
            for _ in range(4):
                y = y + layer(y)
        y.square().sum().backward()
        unshare(layer)
        return gradients(layer)

    exact = accumulators(False, torch.float32)
    if compiled:
        layer.compile(dynamic=False, fullgraph=True)
    result, plain = accumulators(True, torch.bfloat16), accumulators(False, torch.bfloat16)
    for name, gradient in exact.items():
        assert relative_error(result[name], gradient) < 1e-3 + relative_error(plain[name], gradient), name
