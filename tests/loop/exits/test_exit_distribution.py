import math

import pytest
import torch

from mythos.config.halting import PonderHalting
from mythos.loop.exits.distribution import (
    adaptive_computation_time,
    continuation_target,
    divergence_from_prior,
    exit_at_median,
    prior,
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
        prior_T = prior(config, 6)
        assert prior_T.sum().item() == pytest.approx(1.0, rel=1e-6)
        at_prior = prior_T[:, None, None].expand(6, 2, 2)
        assert divergence_from_prior(at_prior, prior_T).abs().max() < 1e-6
    p = stick_breaking(logits())
    entropy = torch.special.entr(p).sum(0)
    torch.testing.assert_close(divergence_from_prior(p, prior(uniform, 7)), math.log(7) - entropy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(prior(geometric, 3), torch.tensor([0.3, 0.21, 0.49]))


def test_improvement_decides_the_continuation_target() -> None:
    nll = torch.tensor([2.0, 1.0, 0.995, 1.5]).view(4, 1, 1)
    target = continuation_target(nll, sharpness=50.0, margin=0.005).flatten()
    assert target[0] > 0.999
    assert target[1].item() == pytest.approx(0.5, abs=1e-3)
    assert target[2].item() == pytest.approx(1 / (1 + math.exp(0.25)), rel=1e-4)
