"""A run that is killed many times ends bitwise like the uninterrupted run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved, wait_until

from mythos.checkpoint.store import checkpoints
from mythos.config import records

OPTIONS = """model=debug optim=adamw data.seq_len=32 data.batch_size=4 data.micro_batch_size=2 depth.mean=3
run.validation.every=50 run.validation.num_batches=2 run.checkpoint.every=3 run.checkpoint.keep_last=2
tracking.log_every=1 telemetry.trace_every=10 parallel.device=cpu schedule.num_warmup_steps=5""".split()
TWO_RANKS = ["parallel=zero1", "parallel.ep_size=2", "cluster.num_devices=2", "cluster.timeout_seconds=600"]


def start(packed: Path, parent: Path, name: str, *more: str) -> subprocess.Popen:
    options = [*OPTIONS, f"data.dir={packed}", f"run.dir={parent}", f"run.name={name}", "resume=auto", *more]
    command = [sys.executable, "-m", "mythos.cli.main", "train", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    with (parent / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def last_step(run: Path) -> int:
    saved_steps = checkpoints(run / "checkpoints")
    return int(saved_steps[-1].name.removeprefix("step-")) if saved_steps else 0


def is_saving(run: Path) -> bool:
    return any((run / "checkpoints").glob(".step-*.tmp"))


def kill(process: subprocess.Popen) -> None:
    """Kill the process and its children at once; they are one session."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("num_kills", "num_steps", "layout"),
    [
        pytest.param(6, 300, [], id="one process"),
        pytest.param(6, 300, TWO_RANKS, id="two ranks"),
        pytest.param(20, 900, TWO_RANKS, id="two ranks, many kills", marks=pytest.mark.all),
    ],
)
def test_kills_at_random_moments_do_not_change_the_curve(
    packed: Path, tmp_path: Path, num_kills: int, num_steps: int, layout: list[str]
) -> None:
    layout = [*layout, f"run.num_steps={num_steps}"]
    assert start(packed, tmp_path, "whole", *layout).wait() == 0
    run, rng = tmp_path / "killed", random.Random(0)
    reached, num_killed_saving = [0], 0
    for index in range(num_kills):
        process = start(packed, tmp_path, "killed", *layout)
        goal = last_step(run) + rng.randrange(3, 30 if num_kills > 6 else 40)
        while last_step(run) < goal and process.poll() is None:
            time.sleep(0.002)
        while index % 2 and not is_saving(run) and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(rng.random() * (0.01 if index % 2 else 0.05))
        assert process.poll() is None, "the run ended before it could be killed"
        kill(process)
        num_killed_saving += is_saving(run)
        reached.append(last_step(run))
    assert reached == sorted(set(reached)), "every attempt must reach a later checkpoint than the one before"
    assert num_killed_saving >= 2
    assert start(packed, tmp_path, "killed", *layout).wait() == 0

    whole = tmp_path / "whole"
    for name in (records.TRAIN_LOSS, records.NUM_LOOPS, records.validation_loss(4), records.state_norm(0)):
        assert recorded(whole, name) == recorded(run, name), name
    ours, theirs = saved(whole, num_steps), saved(run, num_steps)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_one_lost_rank_ends_the_others(packed: Path, tmp_path: Path) -> None:
    process = start(packed, tmp_path, "run", *TWO_RANKS, "run.num_steps=5000")
    wait_until(lambda: last_step(tmp_path / "run") >= 6)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    assert process.wait() != 0
    assert last_step(tmp_path / "run") >= 6
