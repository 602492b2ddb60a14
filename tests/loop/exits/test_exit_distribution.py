import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from mythos.config.halting import PonderHalting
from mythos.loop.exits.distribution import (
    adaptive_computation_time,
    continuation_target,
    divergence_from_prior,
    exit_at_median,
    log_prior,
    log_stick_breaking,
    stick_breaking,
)


def logits(num_loops: int = 7, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(num_loops, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.0, 2.0, 100.0])
@pytest.mark.parametrize("num_loops", [1, 2, 7])
def test_stick_breaking_sums_to_one_and_the_last_loop_takes_the_remainder(num_loops: int, scale: float) -> None:
    x = logits(num_loops, scale)
    p = stick_breaking(x)
    torch.testing.assert_close(p.sum(0), torch.ones(3, 5), rtol=1e-5, atol=0)
    stop = x.double().sigmoid()
    reach = torch.ones(3, 5, dtype=torch.float64)
    for loop in range(num_loops):
        expected = reach if loop == num_loops - 1 else reach * stop[loop]
        torch.testing.assert_close(p[loop].double(), expected, rtol=1e-4, atol=1e-7)
        reach = reach * (1 - stop[loop])


@pytest.mark.parametrize("num_loops", [1, 2, 7])
def test_act_follows_its_definition_token_by_token(num_loops: int) -> None:
    x = logits(num_loops)
    weight, ponder = adaptive_computation_time(x, threshold=0.01)
    torch.testing.assert_close(weight.sum(0), torch.ones(3, 5), rtol=1e-6, atol=0)
    for b in range(3):
        for s in range(5):
            total = 0.0
            for loop in range(num_loops):
                unit = x[loop, b, s].sigmoid().item()
                if total + unit >= 0.99 or loop == num_loops - 1:
                    assert weight[loop, b, s].item() == pytest.approx(1 - total, abs=1e-6)
                    assert not weight[loop + 1 :, b, s].any()
                    assert ponder[b, s].item() == pytest.approx(loop + 1 + 1 - total, abs=1e-5)
                    break
                assert weight[loop, b, s].item() == pytest.approx(unit, abs=1e-6)
                total += unit


def test_act_differentiates_through_units_and_remainder() -> None:
    x = logits().requires_grad_()
    weight, ponder = adaptive_computation_time(x, threshold=0.01)
    (gradient,) = torch.autograd.grad((weight * torch.arange(7.0)[:, None, None]).sum() + ponder.sum(), x)
    used = weight > 0
    used[-1] = False
    last = weight.cumsum(0).sub(1).abs().lt(1e-6).int().argmax(0)
    used.scatter_(0, last[None], False)
    assert (gradient[used] != 0).all()


@pytest.mark.parametrize("scale", [0.1, 8.0, 100.0])
def test_act_sums_to_one_with_finite_gradients_at_any_depth(scale: float) -> None:
    x = (logits(256, scale) - scale).requires_grad_()
    weight, ponder = adaptive_computation_time(x, threshold=0.01)
    torch.testing.assert_close(weight.double().sum(0), torch.ones(3, 5, dtype=torch.float64), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad((weight * torch.arange(256.0)[:, None, None]).sum() + ponder.sum(), x)
    assert gradient.isfinite().all()


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    x = logits().requires_grad_()
    values = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(1))
    soft = stick_breaking(x)
    hard = exit_at_median(soft)
    assert set(hard.detach().round(decimals=5).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(hard.detach().sum(0), torch.ones(3, 5))
    chosen = hard.detach().argmax(0)
    before = soft.cumsum(0).gather(0, chosen[None]).squeeze(0)
    assert (before >= 0.5 - 1e-6).all()
    (ours,) = torch.autograd.grad((hard * values).sum(), x, retain_graph=True)
    (theirs,) = torch.autograd.grad((soft * values).sum(), x)
    assert torch.equal(ours, theirs)


def test_divergence_is_zero_at_the_prior_and_uniform_is_the_entropy_gap() -> None:
    uniform, geometric = PonderHalting(), PonderHalting(prior="geometric", prior_probability=0.3)
    for config in (uniform, geometric):
        log_prior_T = log_prior(config, 6)
        assert log_prior_T.exp().sum().item() == pytest.approx(1.0, rel=1e-6)
        at_prior = log_prior_T[:, None, None].expand(6, 2, 2)
        assert divergence_from_prior(at_prior, log_prior_T).abs().max() < 1e-6
    p = stick_breaking(logits())
    entropy = torch.special.entr(p).sum(0)
    divergence = divergence_from_prior(log_stick_breaking(logits()), log_prior(uniform, 7))
    torch.testing.assert_close(divergence, math.log(7) - entropy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_prior(geometric, 3).exp(), torch.tensor([0.3, 0.21, 0.49]))


@pytest.mark.parametrize(("num_loops", "probability"), [(64, 0.9), (128, 0.6), (32, 0.97), (256, 0.999999)])
def test_divergence_is_zero_at_a_geometric_prior_that_underflows(num_loops: int, probability: float) -> None:
    config = PonderHalting(prior="geometric", prior_probability=probability)
    logit = torch.full((num_loops, 1, 1), math.log(probability / (1 - probability)))
    assert stick_breaking(logit)[-1] == 0
    divergence = divergence_from_prior(log_stick_breaking(logit), log_prior(config, num_loops))
    assert abs(divergence.item()) < 1e-6


@pytest.mark.parametrize(("num_loops", "probability"), [(32, 0.97), (24, 0.99), (64, 0.81), (128, 0.56)])
def test_underflowing_probabilities_have_finite_gradients(num_loops: int, probability: float) -> None:
    logit = torch.full((num_loops, 1, 1), math.log(probability / (1 - probability)), requires_grad=True)
    divergence_from_prior(log_stick_breaking(logit), log_prior(PonderHalting(), num_loops)).sum().backward()
    assert logit.grad.isfinite().all()
    assert logit.grad[0] > 0


def by_hand(logit_T: np.ndarray, log_prior_T: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Return p, KL, the gradient of KL, and the Jacobian of p, by their formulas in float64."""
    z, num_loops = logit_T.astype(np.float64), len(logit_T)
    is_last = np.arange(num_loops) == num_loops - 1
    log_reach = np.concatenate(([0.0], special.log_expit(-z).cumsum()[:-1]))
    log_p = log_reach + np.where(is_last, 0.0, special.log_expit(z))
    own, earlier = np.diag(np.where(is_last, 0.0, special.expit(-z))), np.tri(num_loops, k=-1)
    of_log_p = own - earlier * special.expit(z)
    p = np.exp(log_p)
    log_ratio = log_p - log_prior_T
    return p, p @ log_ratio, (p * log_ratio) @ of_log_p, p[:, None] * of_log_p


FAR = st.floats(-100, 100, width=32)
LOGITS = st.one_of(
    st.lists(FAR, min_size=1, max_size=256),
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=256),
    st.tuples(FAR, st.integers(1, 256)).map(lambda pair: [pair[0]] * pair[1]),
)


@settings(max_examples=300)
@given(LOGITS, st.one_of(st.none(), st.floats(1e-6, 1 - 1e-6)), st.integers(0, 2**32 - 1))
def test_probabilities_divergence_and_gradients_are_those_of_float64(
    values: list[float], probability: float | None, seed: int
) -> None:
    logit_T, num_loops = np.array(values, dtype=np.float32), len(values)
    config = PonderHalting()
    log_prior_T = np.full(num_loops, -math.log(num_loops))
    if probability is not None:
        config = PonderHalting(prior="geometric", prior_probability=probability)
        log_prior_T = np.arange(num_loops) * math.log1p(-probability) + math.log(probability)
        log_prior_T[-1] -= math.log(probability)
    p, divergence, of_divergence, of_p = by_hand(logit_T, log_prior_T)
    x = torch.from_numpy(logit_T)[:, None, None].requires_grad_()
    log_p_TBS = log_stick_breaking(x)
    found = divergence_from_prior(log_p_TBS, log_prior(config, num_loops))
    values_T = torch.randn(num_loops, generator=torch.Generator().manual_seed(seed))
    (found_of_divergence,) = torch.autograd.grad(found.sum(), x, retain_graph=True)
    (found_of_p,) = torch.autograd.grad((values_T[:, None, None] * log_p_TBS.exp()).sum(), x)
    assert np.abs(log_p_TBS.exp().detach().numpy().ravel() - p).max() < 1e-6
    assert found.item() == pytest.approx(divergence, rel=1e-5, abs=1e-5)
    summand = 1 + np.abs(p * (np.log(np.maximum(p, 1e-300)) - log_prior_T)).max()
    for ours, theirs in ((found_of_divergence, of_divergence), (found_of_p, values_T.double().numpy() @ of_p)):
        assert np.abs(ours.numpy().ravel() - theirs).max() < 1e-5 * np.abs(theirs).max() + 1e-6 * summand


def test_improvement_decides_the_continuation_target() -> None:
    nll = torch.tensor([2.0, 1.0, 0.995, 1.5]).view(4, 1, 1)
    target = continuation_target(nll, sharpness=50.0, margin=0.005).flatten()
    assert target[0] > 0.999
    assert target[1].item() == pytest.approx(0.5, abs=1e-3)
    assert target[2].item() == pytest.approx(1 / (1 + math.exp(0.25)), rel=1e-4)
