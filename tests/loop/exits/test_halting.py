from dataclasses import replace

import pytest
import torch
from helpers import fill, gradients, model_config, random_batch, relative_error, run_config

from mythos.config.halting import ActHalting, HaltingConfig, PonderHalting
from mythos.config.run import RunConfig
from mythos.loop.exits.draw import Exits
from mythos.loop.plan import StepPlan
from mythos.loop.policy import Depth
from mythos.losses.objective import objective
from mythos.model.mythos import Mythos


def halting_model(halting: HaltingConfig) -> Mythos:
    model = Mythos(model_config("debug"), halting)
    fill(model)
    return model


def weighing(halting: HaltingConfig) -> RunConfig:
    return replace(
        run_config("depth.num_grad_loops=32", "objective.router_z_loss=0", "halting=ponder"), halting=halting
    )


def every_exit(num_loops: int, weight: float = 0.0) -> StepPlan:
    exits = Exits(tuple(range(num_loops)), (1.0,) * num_loops)
    return StepPlan(Depth(num_loops, num_loops), exits, weight)


def test_ponder_weighs_the_losses_of_all_exits() -> None:
    halting = PonderHalting()
    model = halting_model(halting)
    batch = random_batch(model.config)
    output = model(batch, 4, exits=(0, 1, 2, 3))
    assert output.halting_TBS.shape == (4, 3, 13)
    torch.testing.assert_close(output.halting_TBS.sum(0), torch.ones(3, 13))
    loss = objective(weighing(halting), output, batch, every_exit(4, weight=0.1))
    expected = (output.halting_TBS * output.nll_XBS).sum(0).mean()
    torch.testing.assert_close(loss.nll, expected)
    assert loss.terms["halting"] > 0
    loss.total.backward()
    assert gradients(model)["halting.gate.w2"].abs().sum() > 0


def test_gradients_are_finite_where_early_exits_leave_late_loops_no_probability() -> None:
    halting = PonderHalting(initial_probability=0.97)
    model = Mythos(model_config("debug"), halting)
    fill(model)
    batch = random_batch(model.config)
    output = model(batch, 32, exits=(0, 31))
    assert (output.halting_TBS[-1] == 0).any()
    objective(
        weighing(halting), output, batch, StepPlan(Depth(32, 32), Exits((0, 31), (31.0, 1.0)), 0.1)
    ).total.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    assert gradients(model)["halting.gate.bias"].abs().sum() > 0


def test_exits_that_were_not_drawn_change_neither_states_nor_probabilities() -> None:
    model = halting_model(PonderHalting())
    batch = random_batch(model.config)
    all_exits, some = model(batch, 5, exits=(0, 1, 2, 3, 4)), model(batch, 5, exits=(1, 4))
    assert torch.equal(all_exits.nll_XBS[[1, 4]], some.nll_XBS)
    assert torch.equal(all_exits.exit_prob_XBS[[1, 4]], some.exit_prob_XBS)
    assert torch.equal(all_exits.halting_TBS, some.halting_TBS)


def test_act_reads_the_weighted_mean_of_the_states_at_every_exit() -> None:
    model = halting_model(ActHalting())
    batch = random_batch(model.config)
    together = model(batch, 4, exits=(0, 1, 3))
    for index, num_loops in enumerate((1, 2, 4)):
        assert relative_error(together.nll_XBS[index], model(batch, num_loops).nll_XBS[0]) < 1e-6
    plain = Mythos(model_config("debug"))
    plain.load_state_dict({name: p for name, p in model.state_dict().items() if not name.startswith("halting")})
    assert relative_error(together.nll_XBS[0], plain(batch, 1).nll_XBS[0]) < 1e-6
    assert relative_error(together.nll_XBS[2], plain(batch, 4).nll_XBS[0]) > 1e-3


@pytest.mark.parametrize("halting", [ActHalting(), PonderHalting()])
@pytest.mark.parametrize("num_loops", [1, 3])
def test_cached_decoding_equals_the_full_forward(halting: HaltingConfig, num_loops: int) -> None:
    model = halting_model(halting)
    batch = random_batch(model.config, batch=2, length=9)
    cache = model.new_cache(num_loops, capacity=9)
    logits = torch.cat([model.decode(piece, cache) for piece in batch.tokens_BS.split((4, 1, 3, 1), 1)], 1)
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets_BS, reduction="none")
    assert relative_error(nll, model(batch, num_loops).nll_XBS[0]) < 1e-5


@pytest.mark.parametrize("halting", [ActHalting(weight=9.0), PonderHalting(weight=9.0)])
def test_penalties_never_affect_the_evaluation(halting: HaltingConfig) -> None:
    model = halting_model(halting)
    batch = random_batch(model.config)
    with torch.no_grad():
        before = model(batch, 3).nll_XBS
        objective(weighing(halting), model(batch, 3, exits=(0, 1, 2)), batch, every_exit(3, weight=9.0))
        after = model(batch, 3).nll_XBS
    assert torch.equal(before, after)


def test_the_second_stage_trains_the_gate_towards_realised_improvement() -> None:
    halting = PonderHalting(train="gate", initial_probability=0.5)
    model = halting_model(halting)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("halting."))
    batch = random_batch(model.config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(60):
        loss = objective(weighing(halting), model(batch, 4, exits=(0, 1, 2, 3)), batch, every_exit(4))
        assert list(loss.terms) == ["gate"]
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < 0.8 * losses[0]
    assert set(gradients(model)) == {"halting.gate.w1", "halting.gate.w2", "halting.gate.bias"}
