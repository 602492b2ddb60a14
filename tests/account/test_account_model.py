"""Compare the account with the model that is built and run."""

from dataclasses import replace

import pytest
import torch
from helpers import MODELS, fill, model_config, random_batch, run_config
from torch.utils.flop_counter import FlopCounterMode

from mythos.account.flops import forward_flops, run_flops, training_flops
from mythos.account.parameters import count_parameters
from mythos.config.injection import DiagonalInjection, LinearInjection
from mythos.config.model import HeadConfig, ModelConfig, MoEConfig
from mythos.loop.plan import plan_step
from mythos.losses.objective import objective
from mythos.model.mythos import Mythos
from mythos.train.build import build_model
from mythos.types import Regularizers

NAMES = ("debug", "debug-dense", "debug-mla", "quickstart", "140m", "560m-a210m", "3b", "30b", "1t")


def variants() -> list[ModelConfig]:
    base = model_config("debug")
    return [
        replace(base, head=HeadConfig(tied=False), norm_position="sandwich"),
        replace(base, injection=LinearInjection(), prelude_norm=False),
        replace(base, injection=DiagonalInjection(update_rule="parallel"), num_prelude_layers=0, num_coda_layers=0),
    ]


@pytest.mark.parametrize("config", [*map(model_config, NAMES), *variants()])
def test_parameters_are_exact(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Mythos(config)
    assert count_parameters(config).total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("num_loops", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_matrix_flops_are_exact(name: str, num_loops: int) -> None:
    config = model_config(name)
    if isinstance(config.core_ffn, MoEConfig):  # the counter does not support grouped products
        config = replace(config, core_ffn=replace(config.core_ffn, dispatch="naive"))
    model = Mythos(config)
    fill(model)
    batch = random_batch(config, batch=2, length=16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch, num_loops)
    expected = forward_flops(config, 16, num_loops).matrices
    assert counter.get_total_flops() == expected * batch.tokens_BS.numel()


PENALTY = "objective.jacobian=0.2"


@pytest.mark.parametrize(
    ("options", "num_exits"),
    [
        (["depth.num_grad_loops=3"], 1),
        (["halting=act"], 1),
        (["halting=ponder"], 4),
        (["halting=ponder", "halting.num_exits=20"], 8),
        (["halting=gate"], 8),
        (["objective.supervise_loops=0.3"], 4),
        (["halting=ponder", "objective.supervise_loops=0.3", "objective.num_supervised_loops=6"], 6),
        ([PENALTY, "objective.num_power_iterations=3"], 1),
    ],
)
def test_a_step_counts_every_exit_the_gate_and_the_loops_of_penalties(options: list[str], num_exits: int) -> None:
    run = run_config("depth=fixed", "depth.num_loops=8", "data.seq_len=16", "model.core_ffn.dispatch=naive", *options)
    model, batch = build_model(run), random_batch(run.model, batch=2, length=16)
    assert count_parameters(run.model, run.halting).total == sum(parameter.numel() for parameter in model.parameters())
    fill(model)
    plan = plan_step(run, 0, batch.sample_ids_B)
    regularizers = Regularizers(num_power_iterations=run.objective.num_power_iterations if PENALTY in options else 0)
    with FlopCounterMode(display=False) as counter:
        output = model(batch, 8, run.depth.grad_loops, plan.exits.loops, noise_seed=0, regularizers=regularizers)
        objective(run, output, batch, plan).total.backward()
    is_recomputed = num_exits > 1 and options != ["halting=gate"]
    recomputed = 2 * run.model.vocab_size * run.model.dim * num_exits if is_recomputed else 0
    measured = counter.get_total_flops() / batch.tokens_BS.numel() - recomputed
    expected = run_flops(run, 8, run.depth.grad_loops)
    # the account takes the gradients of inputs that have none: e in the Jacobian penalty
    assert measured == pytest.approx(
        expected.matrices, rel=3e-3 if PENALTY in options or "halting=gate" in options else 0
    )
    plain = training_flops(run.model, 16, 8, run.depth.grad_loops)
    assert (expected.total > plain.total) == (options != ["depth.num_grad_loops=3"] and options != ["halting=gate"])
