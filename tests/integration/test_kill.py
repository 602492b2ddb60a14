"""A run that is killed again and again ends where the uninterrupted run ends."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved

from mythos.checkpoint.store import checkpoints
from mythos.config import records

OPTIONS = """model=debug data.seq_len=32 data.batch_size=4 data.micro_batch_size=2 depth.mean=3 run.num_steps=300
run.validation.every=50 run.validation.num_batches=2 run.checkpoint.every=3 run.checkpoint.keep_last=2
tracking.log_every=1 tracking.trace_every=10 parallel.device=cpu schedule.num_warmup_steps=5""".split()
NUM_KILLS = 6


def start(packed: Path, parent: Path, name: str) -> subprocess.Popen:
    options = [*OPTIONS, f"data.dir={packed}", f"run.dir={parent}", f"run.name={name}", "resume=auto"]
    command = [sys.executable, "-m", "mythos.cli.main", "train", *options]
    with (parent / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def last_step(run: Path) -> int:
    saved = checkpoints(run / "checkpoints")
    return int(saved[-1].name.removeprefix("step-")) if saved else 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_at_random_moments_leave_the_curve_bitwise_the_same(packed: Path, tmp_path: Path) -> None:
    assert start(packed, tmp_path, "whole").wait(300) == 0
    dice = random.Random(0)
    reached = [0]
    for _ in range(NUM_KILLS):
        process = start(packed, tmp_path, "killed")
        deadline = time.monotonic() + 120
        goal = last_step(tmp_path / "killed") + dice.randrange(3, 40)
        while last_step(tmp_path / "killed") < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        reached.append(last_step(tmp_path / "killed"))
    assert reached == sorted(set(reached)), "every attempt must get further than the one before"
    assert start(packed, tmp_path, "killed").wait(300) == 0

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in (records.TRAIN_LOSS, records.NUM_LOOPS, records.validation_loss(4), records.state_norm(0)):
        assert recorded(whole, name) == recorded(killed, name), name
    ours, theirs = saved(whole, 300), saved(killed, 300)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
