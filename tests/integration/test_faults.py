"""Faults in one rank of a real run: the run ends in time, names the line, and restarts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import recorded

from mythos.config import records
from mythos.config.exit_status import STALLED

STALL_SECONDS = 60
"""Longer than any phase of a start on a loaded machine."""
OPTIONS = """model=debug optim=adamw parallel.device=cpu data.seq_len=32 data.batch_size=4 data.micro_batch_size=2
depth.mean=2 run.num_steps=10 run.validation.every=50 run.validation.num_batches=2 run.checkpoint.every=3
tracking.log_every=1 schedule.num_warmup_steps=2 cluster.timeout_seconds=600""".split()
TWO_RANKS = ["parallel=zero1", "cluster.num_devices=2"]
FAULTS = Path(__file__).parent / "faults"


def train(packed: Path, parent: Path, fault: dict, *more: str) -> subprocess.CompletedProcess:
    """Train with a fault in one of the ranks."""
    options = [*OPTIONS, f"data.dir={packed}", f"run.dir={parent}", "run.name=run", *more]
    variables = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "FAULT": json.dumps(fault)}
    path = os.pathsep.join([str(FAULTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "mythos.cli.main", "train", *options],
        env=os.environ | variables | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_rank_that_hangs_ends_all_and_names_the_line(packed: Path, tmp_path: Path) -> None:
    stall = f"run.stall_seconds={STALL_SECONDS}"
    done = train(packed, tmp_path, {"rank": 1, "step": 5, "what": "hang"}, *TWO_RANKS, stall)
    assert done.returncode == STALLED, done.stderr[-4000:]
    stacks = tmp_path / "run" / "logs" / "rank-1.stacks"
    last_metrics = (tmp_path / "run" / records.FILE_NAME).stat().st_mtime
    assert stacks.stat().st_mtime - last_metrics < 2 * STALL_SECONDS
    hung = stacks.read_text()
    line = "time.sleep(3600)  # the line that hangs"
    assert "rank 1 of 2" in hung.splitlines()[0]
    assert "in step 5, forward" in hung.splitlines()[0]
    assert f"in act ({line})" in hung.splitlines()[0]
    assert "mythos/train/module.py" in hung.splitlines()[0]
    assert "sitecustomize.py" in next(frame for frame in hung.splitlines() if frame.endswith(" in act"))
    collectives = json.loads((tmp_path / "run" / "logs" / "rank-1.collectives.json").read_text())
    assert collectives["entries"]
    assert line in done.stderr


@pytest.mark.slow
def test_a_killed_rank_is_restarted(packed: Path, tmp_path: Path) -> None:
    once = tmp_path / "once"
    once.touch()
    fault = {"rank": 1, "step": 5, "what": "kill", "once": str(once)}
    restarts = ["run.max_restarts=1", "run.restart_backoff_seconds=1"]
    done = train(packed, tmp_path, fault, *TWO_RANKS, *restarts)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "the run ended with status 137 (killed by signal 9); it restarts in 1 seconds from step-00000003" in (
        done.stderr
    )
    assert recorded(tmp_path / "run", records.TRAIN_LOSS).keys() == set(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["raise", "kill"])
def test_one_command_skips_poisoned_data(packed: Path, tmp_path: Path, what: str) -> None:
    """In one process, which its own launcher starts three times."""
    restarts = ["run.max_restarts=3", "run.restart_backoff_seconds=0"]
    done = train(packed, tmp_path, {"rank": 0, "step": 5, "what": what}, *restarts)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("it restarts in") == 2
    assert "guard: poison at step 5: samples 16 to 19, on which the step failed twice, are skipped." in done.stderr
    assert recorded(tmp_path / "run", records.guard("poison")) == {5: 1.0}


@pytest.mark.slow
def test_a_slow_rank_is_named(packed: Path, tmp_path: Path) -> None:
    done = train(packed, tmp_path, {"rank": 1, "step": "every", "what": "slow"}, *TWO_RANKS)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("alarm: straggler at step") == 1
    assert "rank 1 on " in done.stderr
    run = tmp_path / "run"
    assert recorded(run, records.alarm("straggler")).keys() <= recorded(run, records.SLOWEST_RANK).keys()
    assert recorded(run, records.SLOWEST_RANK)[10] > 1.5
