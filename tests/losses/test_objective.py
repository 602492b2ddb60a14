import pytest
import torch
from helpers import model_config, random_batch, random_model

from mythos.config.objective import ObjectiveConfig
from mythos.losses.objective import objective
from mythos.types import IGNORED, Batch

CONFIG = ObjectiveConfig(z_loss=0.1, router_z_loss=0.2, balance_loss=0.3)


def cut(batch: Batch, start: int, end: int) -> Batch:
    """Some rows of a step as a micro-batch that still knows the whole step's totals."""
    return Batch(*(part[start:end] if part is not None and part.dim() else part for part in batch))


def test_shares_of_micro_batches_add_up_to_the_whole_step() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config, batch=5)
    batch.targets_BS[0, :7] = IGNORED
    batch = batch._replace(num_targets=(batch.targets_BS != IGNORED).sum().float())
    whole = objective(CONFIG, model(batch, 3, 2), batch, 2)
    parts = [cut(batch, 0, 1), cut(batch, 1, 5)]
    shares = [objective(CONFIG, model(part, 3, 2), part, 2) for part in parts]
    for total, one, other in zip(whole, *shares, strict=True):
        torch.testing.assert_close(total, one + other, rtol=1e-6, atol=0)


def test_each_penalty_is_its_weight_times_its_formula() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config, batch=2, length=8)
    output = model(batch, 3, 2)
    plain = objective(ObjectiveConfig(), output, batch, 2)
    assert plain.penalty == 0
    assert plain.total.item() == pytest.approx(output.nll_XBS.mean().item(), rel=1e-6)
    expected = {
        "z_loss": output.lse_XBS.square().mean(),
        "router_z_loss": output.router_stats.z_loss[-2:].mean() / 16,
        "balance_loss": output.router_stats.balance_loss[-2:].mean() / 2,
    }
    for name, value in expected.items():
        loss = objective(ObjectiveConfig(**{name: 0.5}), output, batch, 2)
        assert loss.penalty.item() == pytest.approx(0.5 * value.item(), rel=1e-6)
        assert loss.nll == plain.nll


def test_penalties_reach_the_router_and_leave_the_likelihood_alone() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    loss = objective(ObjectiveConfig(router_z_loss=1.0), model(batch, 2), batch, 2)
    gate = model.core.blocks[0].ffn.router.gate.weight
    (gradient,) = torch.autograd.grad(loss.penalty, gate)
    assert gradient.abs().sum() > 0
