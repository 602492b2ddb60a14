import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_batch, recorded, saved
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from mythos.callbacks.base import StepResult
from mythos.callbacks.data_position import DataPosition
from mythos.checkpoint.manifest import verify
from mythos.config import records
from mythos.loop.policy import draw, draw_rows
from mythos.train.build import build_model, train
from mythos.train.module import MythosModule
from mythos.train.run_directory import prepare
from mythos.train.start import start

SLOTS = "model.loop.parts=[{kind: depth_attention}, {kind: lanes}, {kind: loop_average}, {kind: memory_tokens}]"
GATES = "model.loop.parts=[{kind: grt_gate}, {kind: keep_gate}, {kind: memory_gate}]"
FAMILIES = (
    "model.loop.parts=[{kind: memory_gate}, {kind: film}, {kind: depth_lora}, {kind: memory_tokens}, "
    "{kind: cross_loop_attention}]"
)
"""One kind of each family that can be combined."""
LANES = "model.loop.parts=[{kind: lanes}]"
BY_LOOP = "model.loop.parts=[{kind: depth_lora}, {kind: film_features, features: fraction}]"


def progress(run: Path, step: int) -> dict:
    """State of loop, callbacks and data in a checkpoint, without Lightning's own batch counts."""
    state = json.loads((run / "checkpoints" / f"step-{step:08d}" / "state.json").read_text())
    return {part: state[part] for part in ("global_step", "callbacks", "TokenDataModule")}


@pytest.mark.parametrize(
    "options",
    [
        *(("model=debug", "optim=adamw"), ("model=debug", "optim=muon_adamw")),
        *(("model=debug-mla", "optim=adamw"), ("model=debug-mla", "optim=muon_adamw")),
        ("depth.per_sequence=true", "balance=sign", "depth.damping=0.5", "depth.num_grad_loops=1"),
        pytest.param(
            (
                "balance=sign",
                "depth.per_sequence=true",
                "model.loop.parts=[{kind: cross_loop_attention}, {kind: value_residual}]",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(("optim=muon_adamw", "balance=sign", "depth.per_sequence=true", SLOTS), marks=pytest.mark.slow),
        pytest.param(("optim=muon_adamw", "balance=sign", "depth.per_sequence=true", GATES), marks=pytest.mark.slow),
        pytest.param(("optim=muon_adamw", "balance=sign", "depth.per_sequence=true", BY_LOOP), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    configure, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    assert_resumes(configure, monkeypatch, options, half=4)


@pytest.mark.all
@pytest.mark.parametrize("parts", [FAMILIES, LANES], ids=["families", "lanes"])
def test_parts_of_every_family_resume_bitwise_after_200_steps(
    configure, monkeypatch: pytest.MonkeyPatch, parts: str
) -> None:
    often = ("run.num_steps=400", "run.checkpoint.every=200", "run.validation.every=200", "telemetry.trace_every=100")
    assert_resumes(configure, monkeypatch, (parts, *often), half=200)


def assert_resumes(configure, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], half: int) -> None:
    """A run that dies before its last checkpoint and resumes from the half equals one without interruption."""
    whole = configure(*options, "run.name=whole")
    train(whole, prepare(whole))
    first = configure(*options, "run.name=halves")
    halves = prepare(first)
    with monkeypatch.context() as patch:
        die_after(2 * half - 2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(first, halves)
    second = configure(*options, "run.name=halves", "resume=auto")
    directory = prepare(second)
    assert directory.manifest.step == half
    train(second, directory)

    run, other = Path(whole.run.dir) / "whole", Path(whole.run.dir) / "halves"
    for name in (records.TRAIN_LOSS, records.GRAD_NORM, records.MEAN_LOOPS, records.learning_rate("hidden"), "tokens"):
        assert recorded(run, name) == recorded(other, name), name
    assert recorded(run, records.validation_loss(4)) == recorded(other, records.validation_loss(4))
    assert progress(run, 2 * half) == progress(other, 2 * half)
    ours, theirs = saved(run, 2 * half), saved(other, 2 * half)
    assert {key.split("|")[1] for key in ours} >= {"weight", "exp_avg", "exp_avg_sq", "step"}
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


def die_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the next run after a step, before that step is recorded or saved."""
    advance = DataPosition.on_step_end

    def fall(self, trainer, module, result: StepResult) -> None:
        advance(self, trainer, module, result)
        if result.step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(DataPosition, "on_step_end", fall)


def test_a_run_learns_and_writes_its_files(configure) -> None:
    config = configure("run.num_steps=40", "run.validation.every=20", "optim.lr=1e-2", "depth.mean=3")
    losses = train(config, prepare(config))
    run = Path(config.run.dir) / "test"
    curve = recorded(run, records.TRAIN_LOSS)
    assert list(curve) == list(range(1, 41))
    assert curve[1] == pytest.approx(math.log(512), abs=0.5)
    assert curve[40] < curve[1] - 2
    assert losses[4] < curve[1] - 2
    depths = recorded(run, records.NUM_LOOPS)
    drawn = [draw(config.depth, config.run.seed, step) for step in range(40)]
    assert list(depths.values()) == [depth.num_loops for depth in drawn]
    assert recorded(run, "tokens")[40] == 40 * 4 * 32
    assert set(recorded(run, records.state_norm(0))) == set(range(3, 41, 3))
    assert json.loads((run / "config.json").read_text())["run"]["num_steps"] == 40
    assert verify(run / "checkpoints" / "step-00000040").next_sample == 160
    assert len(list((run / "checkpoints").glob("step-*"))) == 3


def test_the_split_into_micro_batches_does_not_change_the_curve(configure) -> None:
    curves = []
    for size in (1, 2, 4):
        config = configure(f"data.micro_batch_size={size}", f"run.name=micro{size}", "optim=adamw")
        train(config, prepare(config))
        curves.append(list(recorded(Path(config.run.dir) / f"micro{size}", records.TRAIN_LOSS).values()))
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-6)


PER_SEQUENCE = """depth.per_sequence=true balance=sign depth.num_grad_loops=3 depth.max_loops=6
model.max_loops=4""".split()


@pytest.mark.parametrize("penalties", [(), ("objective.router_z_loss=0.1", "objective.consistency=0.5")])
def test_the_split_does_not_change_the_curve_with_loop_counts_per_sequence(configure, penalties) -> None:
    names = [records.TRAIN_LOSS, records.NUM_LOOPS, records.NUM_GRAD_LOOPS, records.MEAN_LOOPS]
    if penalties:
        names += [records.penalty("router_z"), records.penalty("consistency")]
    results = []
    for size in (1, 2, 4):
        options = (f"data.micro_batch_size={size}", f"run.name=micro{size}", "optim=adamw", *PER_SEQUENCE, *penalties)
        config = configure(*options)
        train(config, prepare(config))
        run = Path(config.run.dir) / f"micro{size}"
        curves = {name: list(recorded(run, name).values()) for name in names}
        results.append((curves, saved(run, 8)["core.router_bias|weight"]))
    for curves, bias in results[1:]:
        for name, curve in curves.items():
            assert curve == pytest.approx(results[0][0][name], rel=1e-6), name
        assert bias.any(-1).all()
        torch.testing.assert_close(bias, results[0][1], rtol=0, atol=1e-7)


def test_the_recorded_loop_counts_are_those_of_the_sequences(configure) -> None:
    config = configure(*PER_SEQUENCE)
    train(config, prepare(config))
    run = Path(config.run.dir) / "test"
    loops = [draw_rows(config.depth, 0, step, np.arange(4 * step, 4 * step + 4)) for step in range(8)]
    assert list(recorded(run, records.NUM_LOOPS).values()) == [row.mean() for row in loops]
    graded = [np.minimum(row, config.depth.grad_loops).mean() for row in loops]
    assert list(recorded(run, records.NUM_GRAD_LOOPS).values()) == graded
    assert recorded(run, records.MEAN_LOOPS)[8] == pytest.approx(np.mean(loops), rel=1e-12)
    entropy = recorded(run, records.ROUTER_ENTROPY).values()
    assert all(0.9 * math.log(4) < value <= math.log(4) for value in entropy)


def test_damping_does_not_change_the_evaluation(configure) -> None:
    losses = []
    for damping in (1.0, 0.5):
        config = configure(f"depth.damping={damping}", "depth.num_grad_loops=1")
        batch = random_batch(config.model)
        losses.append(MythosModule(config, build_model(config)).evaluate_loops(batch, (1, 4))[0])
    assert torch.equal(losses[0], losses[1])


def test_a_resume_may_change_the_split_into_micro_batches(configure) -> None:
    whole = configure("run.name=whole", "optim=adamw")
    train(whole, prepare(whole))
    curve = recorded(Path(whole.run.dir) / "whole", records.TRAIN_LOSS)
    for size in (1, 4):
        name = f"run.name=resumed{size}"
        first = configure(name, "optim=adamw", "run.num_steps=4", "schedule.cooldown_fraction=0")
        train(first, prepare(first))
        second = configure(name, "optim=adamw", "resume=auto", f"data.micro_batch_size={size}")
        train(second, prepare(second))
        resumed = recorded(Path(whole.run.dir) / f"resumed{size}", records.TRAIN_LOSS)
        assert resumed == pytest.approx(curve, rel=1e-5)


def test_a_resume_uses_the_configured_learning_rate(configure) -> None:
    first = configure("run.num_steps=4", "schedule.cooldown_fraction=0")
    train(first, prepare(first))
    second = configure("schedule.cooldown_fraction=0", "resume=auto", "optim.muon_lr=0.5", "optim.lr=0.25")
    train(second, prepare(second))
    run = Path(first.run.dir) / "test"
    assert set(recorded(run, records.learning_rate("hidden")).values()) == {0.01, 0.02, 0.5}
    assert list(recorded(run, records.learning_rate("other")).values())[-4:] == [0.25] * 4


def test_a_second_stage_trains_the_gate_on_the_first_stages_model(configure) -> None:
    first = configure("run.name=first")
    train(first, prepare(first))
    origin = Path(first.run.dir) / "first"
    options = ("halting=gate", "depth.num_grad_loops=4", f"run.init_from={origin}", "run.name=second")
    second = configure(*options, "run.num_steps=30", "run.checkpoint.every=30", "optim.lr=0.02")
    train(second, prepare(second))
    before, after = saved(origin, 8), saved(Path(first.run.dir) / "second", 30)
    weights = {key for key in before if key.endswith("|weight")}
    assert all(torch.equal(before[key], after[key]) for key in weights)
    assert {key.split("|")[0] for key in after.keys() - weights} == {
        f"halting.gate.{name}" for name in ("w1", "w2", "bias")
    }
    loss = recorded(Path(first.run.dir) / "second", records.penalty("gate"))
    early, late = list(loss.values())[:8], list(loss.values())[-8:]
    assert sum(late) < 0.9 * sum(early)
    loops = recorded(Path(first.run.dir) / "second", records.EXPECTED_LOOPS)
    assert all(1 <= value <= 4 for value in loops.values())


def test_a_resumed_second_stage_no_longer_needs_the_first(configure) -> None:
    first = configure("run.name=first")
    train(first, prepare(first))
    origin = Path(first.run.dir) / "first"
    options = ("halting=gate", "depth.num_grad_loops=4", f"run.init_from={origin}", "run.name=second")
    start = configure(*options, "run.num_steps=4")
    assert prepare(start).origin == origin / "checkpoints" / "step-00000008"
    train(start, prepare(start))
    shutil.rmtree(origin)
    rest = configure(*options, "resume=auto")
    assert prepare(rest).origin is None
    train(rest, prepare(rest))
    assert verify(Path(first.run.dir) / "second" / "checkpoints" / "step-00000008").step == 8


def test_recomputation_does_not_change_the_run_bitwise(configure) -> None:
    curves = []
    for remat in ("none", "loop", "block"):
        config = configure(f"parallel.remat={remat}", f"run.name={remat}")
        train(config, prepare(config))
        curves.append(recorded(Path(config.run.dir) / remat, records.TRAIN_LOSS))
    assert curves[0] == curves[1] == curves[2]


def test_the_router_bias_moves_once_a_step_on_rows_that_ran(configure) -> None:
    config = configure("run.num_steps=5", "balance=sign", depth=("depth=fixed", "depth.num_loops=3"))
    train(config, prepare(config))
    bias = saved(Path(config.run.dir) / "test", 5)["core.router_bias|weight"]
    assert bias.shape == (2, 16, 4)
    assert not bias[:, 3:].any()
    moved = bias[:, :3]
    assert moved.abs().max() <= 5 * 2e-3
    assert (moved.abs().sum(-1) > 1e-4).all()
    torch.testing.assert_close(moved.sum(-1), torch.zeros(2, 3), atol=1e-6, rtol=0)


def test_unused_rows_of_the_router_bias_follow_the_deepest_one_that_ran(configure) -> None:
    options = ("run.num_steps=5", "balance.unused_loops=copy_last")
    config = configure(*options, depth=("depth=fixed", "depth.num_loops=3"))
    train(config, prepare(config))
    bias = saved(Path(config.run.dir) / "test", 5)["core.router_bias|weight"]
    assert bias[:, 2].abs().max() > 1e-3
    assert torch.equal(bias[:, 3:], bias[:, 2:3].expand(-1, 13, -1))


def test_a_changed_seed_changes_values_and_nothing_else_does(configure) -> None:
    ours, same, other = (build_model(configure(*o)) for o in ((), ("optim.lr=1.0",), ("run.seed=1",)))
    assert torch.equal(ours.embedding.weight, same.embedding.weight)
    assert not torch.equal(ours.embedding.weight, other.embedding.weight)


def test_bfloat16_approximates_fp32(configure) -> None:
    curves = []
    for precision in ("fp32", "bf16"):
        config = configure(f"parallel.precision={precision}", f"run.name={precision}")
        train(config, prepare(config))
        curves.append(list(recorded(Path(config.run.dir) / precision, records.TRAIN_LOSS).values()))
    assert curves[1] == pytest.approx(curves[0], rel=2e-2)
    assert curves[1] != curves[0]


@pytest.mark.parametrize("is_task", [True, False])
def test_slurm_around_a_run_changes_nothing(
    configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd, is_task: bool
) -> None:
    """As task 3 of a job that packs several runs, and on a login node; the working directory holds another's file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    variables = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_JOB_NAME": "pack"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if is_task else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", 3 if is_task else 0)  # as Lightning sets it when it is imported
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    assert start(configure("run.num_steps=2", "run.checkpoint.every=2")) == 0
    assert recorded(tmp_path / "test", records.TRAIN_LOSS).keys() == {1, 2}
    assert "srun" not in capfd.readouterr().err
