from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import fill, gradients, model_config, random_batch, relative_error, run_config

from mythos.config.depth import FixedDepth
from mythos.config.halting import ActHalting, HaltingConfig, PonderHalting
from mythos.config.run import RunConfig
from mythos.loop.exits.draw import Exits, draw_exits, draw_exits_of_rows
from mythos.loop.plan import StepPlan, plan_step
from mythos.loop.policy import Depth
from mythos.losses.objective import objective
from mythos.model.mythos import Mythos
from mythos.types import ModelOutput, take_rows


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


def test_every_row_may_read_its_own_exits() -> None:
    model = halting_model(PonderHalting())
    batch = random_batch(model.config)
    together = model(batch, 5, exits=(0, 1, 2, 3, 4))
    exits = np.array([[0, 1, 3], [2, 3, 1], [4, 4, 4]])
    exits[:2].sort(0)
    own = model(batch, 5, exits=exits)
    for exit_, loops_B in enumerate(exits):
        for row, loop in enumerate(loops_B):
            assert relative_error(own.nll_XBS[exit_, row], together.nll_XBS[loop, row]) < 1e-6
            assert torch.equal(own.exit_prob_XBS[exit_, row], together.exit_prob_XBS[loop, row])
    assert torch.equal(own.halting_TBS, together.halting_TBS)
    seeds = torch.randn(own.nll_XBS.shape, generator=torch.Generator().manual_seed(0))
    (own.nll_XBS * seeds).sum().backward()
    ours = gradients(model)
    model.zero_grad()
    rows = torch.arange(3)
    (together.nll_XBS[torch.from_numpy(exits), rows] * seeds).sum().backward()
    for name, gradient in gradients(model).items():
        assert relative_error(ours[name], gradient) < 1e-5, name


def drawn_from(output: ModelOutput, exits: Exits, model: Mythos, states: list[torch.Tensor]) -> ModelOutput:
    """Return the output of all loops as a forward that reads some exits would return it, with the gate's gradient."""
    index = torch.as_tensor(np.array(exits.loops)).view(len(exits.weights), -1)
    rows = torch.arange(output.nll_XBS.shape[1])
    halted = model.halting(states, exits.loops)
    return output._replace(
        nll_XBS=output.nll_XBS[index, rows],
        lse_XBS=output.lse_XBS[index, rows],
        exit_prob_XBS=halted.exit_prob_XBS,
        halting_TBS=halted.halting_TBS,
        stop_logit_TBS=halted.stop_logit_TBS,
    )


@pytest.mark.parametrize("draws_by_row", [False, True])
@pytest.mark.parametrize(("num_loops", "initial"), [(8, 0.1), (8, 0.5), (32, 0.1)])
def test_the_gate_sees_more_than_the_noise_of_the_draws(num_loops: int, initial: float, draws_by_row: bool) -> None:
    halting = PonderHalting(initial_probability=initial)
    model = halting_model(halting)
    config = weighing(halting)
    config = replace(config, objective=replace(config.objective, z_loss=1e-4))
    batch = random_batch(model.config, batch=8)
    with torch.no_grad():
        output = model(batch, num_loops, exits=tuple(range(num_loops)))
        states = model.unroll(batch, num_loops).states[1:]

    def gradient_and_loss(exits: Exits) -> tuple[torch.Tensor, float]:
        plan = StepPlan(Depth(num_loops, num_loops), exits, 0.0)
        loss = objective(config, drawn_from(output, exits, model, states), batch, plan)
        grads = torch.autograd.grad(loss.nll + loss.terms["z"], [model.halting.gate.w2, model.halting.gate.bias])
        return torch.cat([grad.flatten() for grad in grads]).double(), loss.nll.item()

    exact, exact_loss = gradient_and_loss(every_exit(num_loops).exits)
    ids = np.arange(8)
    drawn = [
        draw_exits_of_rows(num_loops, 4, 0, step, ids) if draws_by_row else draw_exits(num_loops, 4, 0, step)
        for step in range(200)
    ]
    found, losses = zip(*map(gradient_and_loss, drawn), strict=True)
    noise = torch.stack(found).var(0).sum().sqrt()
    assert noise < 3 * exact.norm()
    assert (torch.stack(found).mean(0) - exact).norm() < 4 * noise / len(found) ** 0.5
    assert np.std(losses) < 0.1
    assert np.mean(losses) == pytest.approx(exact_loss, abs=4 * np.std(losses) / len(losses) ** 0.5)


def test_shares_of_micro_batches_with_drawn_exits_add_up_to_the_whole_step() -> None:
    config = replace(weighing(PonderHalting()), depth=FixedDepth(num_loops=8))
    model = halting_model(config.halting)
    batch = random_batch(model.config, batch=4)

    def share(rows: slice) -> torch.Tensor:
        part = take_rows(batch, rows)
        plan = plan_step(config, 3, part.sample_ids_B)
        return objective(config, model(part, 8, exits=plan.exits.loops), part, plan).total

    assert plan_step(config, 3, batch.sample_ids_B).exits.loops.shape == (4, 4)
    torch.testing.assert_close(share(slice(4)), share(slice(1)) + share(slice(1, 4)), rtol=1e-5, atol=0)


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
