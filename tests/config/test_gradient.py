"""Warnings about parameters without a gradient, compared with the gradients themselves."""

import pytest
import torch
from helpers import gradients, random_batch, run_config

from mythos.cli.main import main
from mythos.config.gradient import untrained
from mythos.loop.plan import plan_step
from mythos.losses.objective import objective
from mythos.parallel.device import autocast
from mythos.train.build import build_model

PLAIN = ("depth=fixed", "depth.num_loops=3", "objective.router_z_loss=0", "data.seq_len=16")
ONE_EXPERT = ("model.core_ffn.num_experts=1", "model.core_ffn.num_active=1")
TOP_1 = "model.core_ffn.num_active=1"
BF16 = ("parallel.precision=bf16", "parallel.state_precision=bf16")
UNNORMALISED = "model.core_ffn.normalize_weights=false"


@pytest.mark.parametrize(
    ("options", "cut", "sentence"),
    [
        ((TOP_1,), ["router.gate"], "num_active is 1 with normalize_weights=true"),
        ((TOP_1, "model.core_ffn.score=softmax"), ["router.gate"], "num_active is 1 with normalize_weights=true"),
        (ONE_EXPERT, ["router.gate"], "num_experts is 1"),
        ((*ONE_EXPERT, UNNORMALISED, "model.core_ffn.score=softmax"), ["router.gate"], "num_experts is 1"),
        (("halting=ponder", "depth.num_loops=1"), ["halting.gate"], "no step runs more than 1 loop"),
        (("halting=act", "depth.num_loops=1"), ["halting.gate"], "no step runs more than 1 loop"),
        (("halting=act", "halting.initial_probability=0.995"), ["halting.gate"], "initial_probability below 0.99"),
        (("model.injection.initial_decay=0.9999999",), ["injection.log_rate"], "initial_decay is 0.9999999, outside"),
        ((*BF16, "model.injection.initial_decay=0.999"), ["injection.log_rate"], "0.999, outside the bounds"),
        (("model.injection.initial_decay=1e-36",), ["log_rate", "dt_bias"], "initial_decay is 1e-36, outside"),
        (("halting=gate", "depth.num_loops=3"), [], "frozen at its random initial values"),
        ((), [], None),
        ((TOP_1, UNNORMALISED), [], None),
        ((TOP_1, UNNORMALISED, "model.core_ffn.score=softmax"), [], None),
        ((*ONE_EXPERT, UNNORMALISED), [], None),
        (("halting=ponder",), [], None),
        (("halting=act",), [], None),
        (("halting=act", "halting.initial_probability=0.9"), [], None),
        (("model.injection.initial_decay=0.999",), [], None),
        (("model=debug-dense",), [], None),
    ],
)
def test_warned_parameters_are_those_without_a_gradient(
    options: tuple[str, ...], cut: list[str], sentence: str | None
) -> None:
    run = run_config(*PLAIN, *options)
    model = build_model(run)
    with torch.no_grad():  # output projections that start at zero would cut everything in the first step
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "w2.weight", "experts.w2", "gate.w2")):
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    batch = random_batch(run.model, batch=2, length=16)
    plan = plan_step(run, 0, batch.sample_ids_B)
    with autocast(run.parallel.precision, torch.device("cpu")):
        output = model(batch, plan.depth.num_loops, plan.depth.num_grad_loops, plan.exits.loops, noise_seed=0)
    objective(run, output, batch, plan).total.backward()
    sizes = {name: gradient.abs().max().item() for name, gradient in gradients(model).items()}
    rounding = 1e-6 * max(sizes.values())  # of a weight over itself
    zero = {name for name, size in sizes.items() if size < (rounding if "router" in name else 1e-12)}
    assert all(any(part in name for part in cut) for name in zero), zero
    assert all(any(part in name for name in zero) for part in cut), zero
    assert [sentence in one for one in untrained(run)] == ([] if sentence is None else [True])


def test_training_warns_once(packed, tmp_path, capfd: pytest.CaptureFixture[str]) -> None:
    words = f"""model=debug {TOP_1} data.dir={packed} run.dir={tmp_path} run.name=one run.num_steps=1 data.seq_len=32
    data.batch_size=2 data.micro_batch_size=2 schedule.num_warmup_steps=0 parallel.device=cpu depth.mean=1
    run.validation.num_batches=1""".split()
    assert main(["train", *words]) == 0
    assert capfd.readouterr().err.count("warning: model.core_ffn.num_active is 1 with normalize_weights=true") == 1
