import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import model_config
from hypothesis import given
from hypothesis import strategies as st

from mythos.config.injection import AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.model import ModelConfig
from mythos.loop.injection import LARGEST_DECAY, Diagonal, build_injection, initial_dt, initialize_dt_bias

ANY = st.floats(width=32, allow_nan=False, allow_infinity=True)


def of_width(dim: int, **changes: Any) -> ModelConfig:
    base = model_config("debug-dense")
    return replace(base, dim=dim, attention=replace(base.attention, head_dim=2), **changes)


def diagonal(discretization: str = "euler", dim: int = 4, decay: float = 0.4) -> Diagonal:
    config = DiagonalInjection(discretization=discretization, initial_decay=decay)
    layer = Diagonal(config, of_width(dim))
    with torch.no_grad():
        layer.log_rate.zero_()
        initialize_dt_bias(layer.dt_bias, DiagonalInjection(initial_decay=decay), torch.Generator())
        layer.input_matrix.copy_(torch.eye(dim))
    return layer


@given(log_rate=ANY, dt_bias=ANY)
@pytest.mark.parametrize("discretization", ["euler", "zoh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decay_stays_inside_its_bounds(
    discretization: str, dtype: torch.dtype, log_rate: float, dt_bias: float
) -> None:
    layer = diagonal(discretization).to(dtype)
    with torch.no_grad():
        layer.log_rate.copy_(torch.tensor(log_rate))
        layer.dt_bias.copy_(torch.tensor(dt_bias))
    with torch.autocast("cpu", torch.bfloat16):
        decay, gain = layer.decay_and_gain()
    assert decay.dtype == torch.float32
    assert (decay > 0).all()
    assert (decay <= LARGEST_DECAY).all()
    assert not gain.isnan().any()


def test_state_never_grows_without_input_even_in_bfloat16() -> None:
    layer = diagonal(dim=64)
    torch.nn.init.constant_(layer.dt_bias, -100.0)
    h = torch.randn(1, 5, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        u = layer(h, torch.zeros_like(h))
    assert u.dtype == torch.bfloat16
    assert (u.abs() <= h.abs()).all()


def test_initial_decay_is_the_configured_one() -> None:
    decay, gain = diagonal(decay=0.4472135955).decay_and_gain()
    torch.testing.assert_close(decay, torch.full((4,), 0.4472135955), rtol=1e-6, atol=0)
    torch.testing.assert_close(gain, torch.full((4,), 0.8047), rtol=1e-4, atol=0)
    _, held = diagonal("zoh", decay=0.4472135955).decay_and_gain()
    torch.testing.assert_close(held, torch.full((4,), 1 - 0.4472135955), rtol=1e-6, atol=0)


def test_exact_hold_is_the_solution_of_the_differential_equation() -> None:
    layer = diagonal("zoh", dim=1)
    torch.nn.init.constant_(layer.log_rate, 0.7)
    torch.nn.init.constant_(layer.dt_bias, 0.3)
    h, e = torch.tensor([[[2.0]]]), torch.tensor([[[-1.5]]])
    rate, dt = math.exp(0.7), math.log1p(math.exp(0.3))
    state, num_steps = 2.0, 200_000
    for _ in range(num_steps):
        state += dt / num_steps * (-rate * state - 1.5)
    assert layer(h, e).item() == pytest.approx(state, rel=1e-4)


def test_linear_starts_as_diagonal_does_and_additive_adds() -> None:
    h, e = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    linear = build_injection(of_width(4, injection=LinearInjection(initial_decay=0.4)))
    with torch.no_grad():
        linear.matrix.copy_(torch.cat((0.4 * torch.eye(4), initial_dt(0.4) * torch.eye(4)), 1))
    torch.testing.assert_close(linear(h, e), diagonal(decay=0.4)(h, e), rtol=1e-5, atol=1e-6)
    assert torch.equal(build_injection(of_width(4, injection=AdditiveInjection()))(h, e), h + e)


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
def test_a_state_in_bf16_always_forgets(discretization: str) -> None:
    decays = torch.cat((torch.tensor([0.99988, 1 - 2**-8, 1 - 2**-9, 0.5]), 1 - torch.logspace(-9, -1, 60)))
    layer = diagonal(discretization, dim=64)
    h = torch.randn(1, 200, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    start, nothing = h, torch.zeros(h.shape)
    with torch.no_grad():
        layer.dt_bias.copy_(torch.expm1(-decays.double().log()).log().clamp(min=-60))
        for _ in range(50):
            h, old = layer(h, nothing), h
            assert (h.abs() < old.abs()).logical_or(old == 0).all()
        for _ in range(1950):
            h = layer(h, nothing)
        kept = start.float()
        for _ in range(2000):
            kept = layer(kept, nothing)
    assert h.abs().max() < 1e-3
    ratio = kept.abs().sum((0, 1)) / start.float().abs().sum((0, 1))
    assert ratio[0].item() == pytest.approx(0.99988**2000, rel=1e-2)  # a state in fp32 decays by A itself
