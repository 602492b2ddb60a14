import json
import math
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved

from mythos.callbacks import loop_telemetry
from mythos.config import records
from mythos.data.datamodule import TokenDataModule
from mythos.loop.growth import jacobian_growth
from mythos.loop.plan import plan_step
from mythos.loop.state import noise
from mythos.losses.objective import objective
from mythos.model.mythos import Mythos
from mythos.optim.groups import grouping
from mythos.train.build import build_model, train
from mythos.train.run_directory import prepare
from mythos.types import IGNORED, first_rows


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_of(config) -> Path:
    return Path(config.run.dir) / config.run.name


EVERY_KIND = {
    "moe": (),
    "accumulated": ("data.micro_batch_size=1",),
    "recomputed": ("parallel.remat=loop",),
    "recomputed-blocks": ("parallel.remat=block",),
    "per-sequence": ("depth.per_sequence=true", "balance=sign", "depth.num_grad_loops=1"),
    "act": ("halting=act", "depth.num_grad_loops=4"),
    "ponder": ("halting=ponder", "depth.num_grad_loops=4", "halting.num_exits=2", "parallel.remat=loop"),
    "gate": ("halting=gate", "depth.num_grad_loops=4"),
    "mla-bf16": ("model=debug-mla", "parallel.precision=bf16"),
    "gates": ("model.loop.parts=[{kind: keep_gate}, {kind: memory_gate}, {kind: grt_gate}]", "parallel.remat=loop"),
    "dense-penalties": ("model=debug-dense", "objective.consistency=0.2", "objective.jacobian=0.2"),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_telemetry_does_not_change_the_training_bitwise(configure, kind: str) -> None:
    results = []
    for every in (1, 1000):
        config = configure(
            *EVERY_KIND[kind],
            f"telemetry.trace_every={every}",
            f"telemetry.jacobian_every={every}",
            f"run.name=every{every}",
            "run.checkpoint.every=8",
        )
        train(config, prepare(config))
        run = run_of(config)
        results.append((recorded(run, records.TRAIN_LOSS), recorded(run, records.GRAD_NORM), saved(run, 8)))
        assert len(recorded(run, records.state_norm(0))) == (8 if every == 1 else 0)
    (losses, norms, ours), (other_losses, other_norms, theirs) = results
    assert losses == other_losses
    assert norms == other_norms
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def first_batch(config):
    return next(iter(TokenDataModule(config.data, config.run.seed, 1).train_dataloader()))


@pytest.mark.parametrize("halting", [(), ("halting=ponder", "depth.num_grad_loops=4", "halting.num_exits=2")])
def test_a_record_equals_a_direct_computation(configure, halting: tuple[str, ...]) -> None:
    config = configure(
        *("data.micro_batch_size=4", "telemetry.trace_every=1", "telemetry.jacobian_every=1", "telemetry.trace_rows=3"),
        *("telemetry.trace_num_loops=[1, 3]", "run.num_steps=1", "schedule.num_warmup_steps=1", "optim.clip_norm=1e-3"),
        *("model.output_scale=1", "model.embedding_std=0.5", "model.injection.discretization=zoh", *halting),
        depth=("depth=fixed", "depth.num_loops=4"),
    )
    train(config, prepare(config))
    measured: dict[str, float] = {}
    for line in lines(run_of(config) / "metrics.jsonl"):
        measured |= line
    arrays = lines(run_of(config) / "trace.jsonl")[-1]

    model, batch = build_model(config), first_batch(config)
    plan = plan_step(config, 0, batch.sample_ids_B)
    output = model(batch, 4, 4, exits=plan.exits.loops, noise_seed=0)
    objective(config, output, batch, plan).total.backward()

    def check(name: str, value: torch.Tensor | float) -> None:
        assert measured.pop(name) == pytest.approx(torch.as_tensor(value).item(), rel=1e-4, abs=1e-6), name

    # loss by loop count and growth, on three rows without noise
    rows = first_rows(batch, 3)
    num_targets = (rows.targets_BS != IGNORED).sum()
    for depth in (1, 3):
        check(records.loss_at(depth), model(rows, depth).nll_XBS.sum() / num_targets)
    gain = model(rows, 1).nll_XBS.sum() - model(rows, 3).nll_XBS.sum()
    assert measured.pop(records.LOSS_GAIN) == pytest.approx((gain / num_targets).item(), abs=1e-5)
    check(records.JACOBIAN_RADIUS, growth_of(model, rows, 3))
    # gradients and updates by group
    squares, updates, sizes = ({"hidden": 0.0, "experts": 0.0, "other": 0.0} for _ in range(3))
    after = saved(run_of(config), 1)
    for name, parameter in model.named_parameters():
        group = grouping(config.model)(name)
        squares[group] += 0.0 if parameter.grad is None else parameter.grad.double().square().sum()
        updates[group] += (after[f"{name}|weight"] - parameter).double().square().sum()
        sizes[group] += parameter.double().square().sum()
    for group in squares:
        check(records.group_grad_norm(group), squares[group] ** 0.5)
        check(records.group_update_norm(group), (updates[group] / sizes[group]) ** 0.5)
    check(records.GRAD_NORM, sum(squares.values()) ** 0.5)
    # figures of the parameters
    decay, gain = model.core.injection.decay_and_gain()
    check(records.DECAY_MAX, decay.max())
    check(records.DECAY_MEAN, decay.mean())
    matrix = torch.diag(gain) @ model.core.injection.input_matrix
    check(records.INPUT_GAIN, matrix.norm() / config.model.dim**0.5)
    check(records.LOG_PARTITION, output.lse_XBS[-1].mean())
    # experts
    counts = output.router_stats.counts_E
    entropy = output.router_stats.entropy / batch.tokens_BS.numel()
    for loop in range(4):
        for layer in range(2):
            load = counts[loop, layer].double()
            check(records.load_violation(layer, loop), load.max() / load.mean() - 1)
            check(records.router_entropy(layer, loop), entropy[loop, layer])
            assert arrays[records.EXPERT_LOAD][layer][loop] == [round(100 * x) for x in (load / load.mean()).tolist()]
    check(records.LOAD_VIOLATION, (counts.double().amax(-1) / counts.double().mean(-1) - 1).mean())
    for layer in range(2):
        assert measured.pop(records.idle_steps(layer)) == 0
    if halting:
        for loop in range(4):
            check(records.halting_mass(loop), output.halting_TBS[loop].mean())
    # the state, which tests/model compares with the loops themselves
    trace = model(batch, 4, 4, noise_seed=0, trace=True).trace
    for loop in range(4):
        check(records.state_norm(loop), trace.state_norm_T[loop])
        check(records.relative_change(loop), trace.relative_change_T[loop])
        check(records.cosine(loop), trace.cosine_T[loop])
        check(records.token_correlation(loop), trace.token_correlation_T[loop])
        if loop:
            check(records.curvature_ratio(loop), trace.curvature_ratio_T[loop])
        for layer in range(2):
            check(records.update_norm(layer, loop), trace.update_norm_TL[loop, layer])
            check(records.path_diversity(layer, loop), trace.experts.path_diversity_TL[loop, layer])
            if loop:
                check(records.identical_experts(layer, loop), trace.experts.identical_TL[loop, layer])
                check(records.disjoint_experts(layer, loop), trace.experts.disjoint_TL[loop, layer])
    overlap = trace.experts.overlap_TT
    torch.testing.assert_close(torch.tensor(arrays[records.EXPERT_OVERLAP]), overlap, atol=6e-4, rtol=0)
    # by loop, the root mean square over the four rows
    gradient_T = gradients_by_loop(model, batch, plan, config)
    for loop, gradient in enumerate(gradient_T):
        check(records.gradient_norm(loop), gradient / 2)
    remaining = {name.split("/")[0] for name in measured if name.startswith(("loop", "experts/", "injection", "head"))}
    assert remaining <= {"experts"}
    assert {name for name in measured if name.startswith("experts/")} == {records.ROUTER_ENTROPY}


@torch.no_grad()
def growth_of(model: Mythos, rows, num_loops: int) -> float:
    """Growth over one more loop along the direction of eight power iterations, from the state of a separate forward."""
    inputs = model._inputs(rows)._replace(loop=num_loops)
    state = model.core.start(model(rows, num_loops).state_BSD, inputs.e_BSD)
    direction = noise(0, rows.sample_ids_B, *inputs.e_BSD.shape[1:])
    return jacobian_growth(model.core.step, state, inputs, 8, direction).sqrt().mean().item()


def gradients_by_loop(model: Mythos, batch, plan, config) -> list[float]:
    """Norm of the gradient with respect to a small addition to the state after each loop."""
    step, additions = model.core.step, []

    def step_and_add(state, inputs, expert_indices=None):
        new, stats = step(state, inputs, expert_indices)
        additions.append(torch.zeros_like(new.h_BSD, requires_grad=True))
        return new._replace(h_BSD=new.h_BSD + additions[-1]), stats

    model.core.step = step_and_add
    output = model(batch, 4, 4, exits=plan.exits.loops, noise_seed=0)
    objective(config, output, batch, plan).total.backward()
    del model.core.step
    return [addition.grad.norm().item() for addition in additions]


def test_arrays_hold_one_history_after_a_resume(configure) -> None:
    for steps, resume in ((4, "never"), (8, "auto")):
        config = configure("telemetry.trace_every=2", f"run.num_steps={steps}", f"resume={resume}")
        train(config, prepare(config))
    path = run_of(config) / "trace.jsonl"
    with path.open("a") as file:
        file.write('{"step": 9, "x')
    config = configure("telemetry.trace_every=2", "run.num_steps=10", "resume=auto")
    train(config, prepare(config))
    head, *rest = lines(path)
    assert head == {"schema": records.SCHEMA}
    assert [line["step"] for line in rest] == [2, 4, 6, 8, 10]


def test_gates_of_loop_parts_are_recorded_by_loop(configure) -> None:
    """At the first step every gate has its initial value."""
    kinds = "model.loop.parts=[{kind: film}, {kind: keep_gate}, {kind: memory_gate}, {kind: grt_gate}]"
    options = ("telemetry.trace_every=1", "run.num_steps=1", "schedule.num_warmup_steps=1")
    config = configure(kinds, *options, depth=("depth=fixed", "depth.num_loops=3"))
    train(config, prepare(config))
    initial = {"keep_gate/keep": 0.0, "grt_gate/keep": 4.0}
    initial |= {"memory_gate/forget": 1.0, "memory_gate/write": -1.0, "memory_gate/half_read": 0.0}
    for name, logit in initial.items():
        mean = 0.0 if name == "keep_gate/keep" else 1 / (1 + math.exp(-logit))
        for loop in range(3):
            gate = f"loop/{name}"
            figures = [name_of(gate, loop) for name_of in (records.gate_mean, records.gate_near_0, records.gate_near_1)]
            found = [recorded(run_of(config), figure)[1] for figure in figures]
            assert found == pytest.approx([mean, float(mean < 0.02), float(mean > 0.98)], abs=1e-5), figures


def test_losses_beyond_the_policys_loop_counts_are_evaluated_on_request(configure) -> None:
    config = configure("telemetry.trace_every=4", "telemetry.trace_num_loops=[9, 1]", "run.num_steps=4")
    train(config, prepare(config))
    for depth in (1, 9):
        assert math.isfinite(recorded(run_of(config), records.loss_at(depth))[4])
    assert loop_telemetry.LoopTelemetry(config, None, run_of(config)).num_loops == (1, 9)
