"""A run that is killed many times ends bitwise like the uninterrupted run, with the same records and alarms."""

import fcntl
import json
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

from mythos.checkpoint.manifest import read_manifest
from mythos.checkpoint.store import checkpoints
from mythos.config import records
from mythos.data.poison import Witness, failed_step

OPTIONS = """model=debug optim=adamw data.seq_len=32 data.batch_size=4 data.micro_batch_size=2 depth.mean=3
run.validation.every=25 run.validation.num_batches=2 run.checkpoint.every=3 run.checkpoint.keep_last=2
tracking.log_every=1 telemetry.trace_every=10 telemetry.alarms.num_records=3 telemetry.alarms.num_warmup_steps=0
telemetry.alarms.ignored_state=0.9 telemetry.alarms.idle_steps=10 parallel.device=cpu
schedule.num_warmup_steps=5""".split()
FAULTS = Path(__file__).parent / "faults"
TIMES = ("speed/", "memory/", "time", "alarm/straggler", "alarm_figure/straggler", "alarm_limit/straggler")
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


def is_free(run: Path) -> bool:
    """Whether the processes of the last attempt have ended, which hold a lock."""
    if not (run / "lock").exists():
        return True
    with (run / "lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def kill(process: subprocess.Popen) -> None:
    """Kill the process and its children at once; they are one session."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lines_of(path: Path) -> list[dict[str, object]]:
    """Every record of a file in order, without what measures time; equal floats are equal in each bit."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if not name.startswith(TIMES)} for line in lines]
    return [line for line in kept if line.keys() - {"step", "tokens"}]


def alarms_of(log: Path) -> list[str]:
    """What the run has reported; a report that was not saved before a kill is repeated."""
    reported = [line for line in log.read_text().splitlines() if line.startswith("alarm") and "straggler" not in line]
    return list(dict.fromkeys(reported))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("num_kills", "num_steps", "layout"),
    [
        pytest.param(6, 120, [], id="one process"),
        pytest.param(3, 60, TWO_RANKS, id="two ranks"),
        pytest.param(20, 600, [], id="one process, many kills", marks=pytest.mark.all),
        pytest.param(20, 600, TWO_RANKS, id="two ranks, many kills", marks=pytest.mark.all),
    ],
)
def test_kills_at_random_moments_change_neither_the_run_nor_its_records(
    packed: Path, tmp_path: Path, num_kills: int, num_steps: int, layout: list[str]
) -> None:
    """Of three kills, one comes at any moment of a start, one between two saves, and one in a save."""
    layout = [*layout, f"run.num_steps={num_steps}"]
    begun_at = time.monotonic()
    whole, run, rng = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    uninterrupted = start(packed, tmp_path, "whole", *layout)
    wait_until(lambda: last_step(whole) > 0 or uninterrupted.poll() is not None)
    start_seconds = time.monotonic() - begun_at
    assert uninterrupted.wait() == 0
    reached, num_killed_saving = [0], 0
    for index in range(num_kills):
        process = start(packed, tmp_path, "killed", *layout)
        if index % 3 == 0:
            time.sleep(rng.random() * start_seconds)
        else:
            goal = last_step(run) + rng.randrange(3, num_steps // num_kills)
            while last_step(run) < goal and process.poll() is None:
                time.sleep(0.002)
            while index % 3 == 2 and not is_saving(run) and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(rng.random() * (0.01 if index % 3 == 2 else 0.05))
        assert process.poll() is None, "the run ended before it could be killed"
        kill(process)
        num_killed_saving += is_saving(run)
        assert index % 3 == 0 or last_step(run) > reached[-1], "an attempt must reach a later checkpoint"
        reached.append(last_step(run))
        wait_until(lambda: is_free(run))
    assert reached == sorted(reached)
    assert num_killed_saving >= num_kills // 6
    assert start(packed, tmp_path, "killed", *layout).wait() == 0

    for name in (records.FILE_NAME, records.TRACE_FILE_NAME):
        assert lines_of(whole / name) == lines_of(run / name), name
    assert {name for line in lines_of(whole / records.FILE_NAME) for name in line} >= {
        records.TRAIN_LOSS,
        records.validation_loss(4),
        records.state_norm(0),
        records.load_violation(0, 0),
        records.idle_steps(0),
        records.alarm("ignored_state"),
    }
    assert alarms_of(tmp_path / "whole.log") == alarms_of(tmp_path / "killed.log") != []
    ours, theirs = saved(whole, num_steps), saved(run, num_steps)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for path in checkpoints(whole / "checkpoints"):
        assert read_manifest(path).metrics == read_manifest(run / "checkpoints" / path.name).metrics != {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param([], id="one process"),
        pytest.param(["run.max_restarts=1"], id="with a launcher", marks=pytest.mark.all),
    ],
)
def test_two_kills_within_a_slow_first_step_skip_no_data(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: list[str]
) -> None:
    rank = 0 if launcher else -1
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAULTS), os.environ.get("PYTHONPATH", "")]))
    with monkeypatch.context() as slow:
        slow.setenv("FAULT", json.dumps({"rank": rank, "step": 1, "what": "hang"}))
        for _ in range(2):
            witness = Witness(tmp_path / "killed")
            process = start(packed, tmp_path, "killed", *launcher, "run.num_steps=6")
            while not witness.has_failure and process.poll() is None:
                time.sleep(0.02)
            assert process.poll() is None, (tmp_path / "killed.log").read_text()
            kill(process)
            wait_until(lambda: is_free(tmp_path / "killed"))
            assert failed_step(tmp_path / "killed").step == 1
    assert start(packed, tmp_path, "killed", *launcher, "run.num_steps=6").wait() == 0
    assert recorded(tmp_path / "killed", records.guard("poison")) == {}
    assert recorded(tmp_path / "killed", records.TRAIN_LOSS).keys() == set(range(1, 7))
    assert "poison" not in (tmp_path / "killed.log").read_text()


@pytest.mark.slow
def test_one_lost_rank_ends_the_others(packed: Path, tmp_path: Path) -> None:
    process = start(packed, tmp_path, "run", *TWO_RANKS, "run.num_steps=5000")
    wait_until(lambda: last_step(tmp_path / "run") >= 6)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    assert process.wait() != 0
    assert last_step(tmp_path / "run") >= 6
