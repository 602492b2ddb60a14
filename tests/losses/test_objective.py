import itertools
from dataclasses import replace

import pytest
import torch
from helpers import model_config, random_batch, random_model, run_config

from mythos.config.objective import ObjectiveConfig
from mythos.config.run import RunConfig
from mythos.loop.exits.draw import Exits
from mythos.loop.growth import jacobian_growth
from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.plan import StepPlan
from mythos.loop.policy import Depth
from mythos.losses.objective import Loss, objective
from mythos.types import IGNORED, Batch, Regularizers, take_rows


def weighing(**weights: float) -> RunConfig:
    """Return a run whose objective has these weights and no others."""
    return replace(run_config(), objective=ObjectiveConfig(**weights))


def plan(num_loops: int, num_grad_loops: int) -> StepPlan:
    return StepPlan(Depth(num_loops, num_grad_loops), Exits((num_loops - 1,), (1.0,)), 0.0)


def cut(batch: Batch, start: int, end: int) -> Batch:
    """Return some rows of a step as a micro-batch with the totals of the whole step."""
    return take_rows(batch, slice(start, end))


def test_shares_of_micro_batches_add_up_to_the_whole_step() -> None:
    model = random_model(model_config("debug"))
    config = weighing(z_loss=0.1, router_z_loss=0.2, balance_loss=0.3, consistency=0.4, jacobian=0.5)
    regularizers = Regularizers(consistency=True, num_power_iterations=2)
    batch = random_batch(model.config, batch=5)
    batch.targets_BS[0, :7] = IGNORED
    batch = batch._replace(num_targets=(batch.targets_BS != IGNORED).sum().float())

    def weigh(part: Batch) -> Loss:
        return objective(config, model(part, 3, 2, regularizers=regularizers), part, plan(3, 2))

    whole, shares = weigh(batch), [weigh(cut(batch, 0, 1)), weigh(cut(batch, 1, 5))]
    torch.testing.assert_close(whole.total, shares[0].total + shares[1].total, rtol=1e-5, atol=0)
    assert set(whole.terms) == {"z", "router_z", "balance", "consistency", "jacobian"}
    for name, total in whole.terms.items():
        torch.testing.assert_close(total, sum(share.terms[name] for share in shares), rtol=1e-4, atol=0)


def test_each_penalty_is_its_weight_times_its_formula() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config, batch=2, length=8)
    output = model(batch, 3, 2, regularizers=Regularizers(consistency=True))
    plain = objective(weighing(), output, batch, plan(3, 2))
    assert not plain.terms
    assert plain.total == plain.nll
    assert plain.nll.item() == pytest.approx(output.nll_XBS.mean().item(), rel=1e-6)
    h = [model(batch, num_loops).state_BSD for num_loops in (1, 2, 3)]
    moved = [((new - old).norm(dim=-1) / new.norm(dim=-1)).square().mean() for old, new in itertools.pairwise(h)]
    expected = {
        "z_loss": output.lse_XBS.square().mean(),
        "router_z_loss": output.router_stats.z_loss[-2:].mean() / 16,
        "balance_loss": output.router_stats.balance_loss[-2:].mean() / 2,
        "consistency": sum(moved) / 2,
        "supervise_loops": output.nll_XBS.mean() / 3,
    }
    for name, value in expected.items():
        loss = objective(weighing(**{name: 0.5}), output, batch, plan(3, 2))
        (term,) = loss.terms.values()
        assert term.item() == pytest.approx(0.5 * value.item(), rel=1e-5), name
        assert loss.nll == plain.nll


def test_growth_is_the_power_method_on_the_jacobian_of_one_loop() -> None:
    config = model_config("debug-dense", vocab_size=16, dim=16, num_core_layers=1)
    model = random_model(config)
    batch = random_batch(config, batch=1, length=2)
    rotation = model._rotation(batch.positions_BS)
    e = model.encode(batch.tokens_BS, rotation, None)
    h, inputs = model(batch, 4).state_BSD.detach(), LoopInputs(e, rotation, None, 4)

    def one_loop(flat: torch.Tensor) -> torch.Tensor:
        return model.core.step(LoopState(flat.view_as(h), layer_carries=((),)), inputs)[0].h_BSD.flatten()

    jacobian = torch.autograd.functional.jacobian(one_loop, h.flatten())
    direction = torch.randn(h.shape, generator=torch.Generator().manual_seed(0))
    growth = jacobian_growth(model.core.step, model.core.start(h, e), inputs, 5, direction)
    v = direction.flatten()
    for _ in range(5):
        v = torch.nn.functional.normalize(jacobian @ v, dim=0)
    assert growth.item() == pytest.approx((jacobian @ v).square().sum().item(), rel=0.02)
    (gradient,) = torch.autograd.grad(growth.sum(), model.core.blocks[0].attention.o_proj.weight)
    assert gradient.abs().sum() > 0


def test_penalties_reach_the_router_and_do_not_change_the_likelihood() -> None:
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    loss = objective(weighing(router_z_loss=1.0), model(batch, 2), batch, plan(2, 2))
    (gradient,) = torch.autograd.grad(loss.terms["router_z"], model.core.blocks[0].ffn.router.gate.weight)
    assert gradient.abs().sum() > 0
