"""Runs that are asked to stop save the same step on all ranks, print how to resume, and resume bitwise."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved, wait_until

from mythos.checkpoint.store import checkpoints
from mythos.config import records
from mythos.config.exit_status import PREEMPTED

NUM_STEPS = 80
OPTIONS = f"""model=debug optim=adamw parallel=zero1 parallel.ep_size=2 parallel.device=cpu data.seq_len=32
data.batch_size=4 data.micro_batch_size=2 depth.mean=3 run.num_steps={NUM_STEPS} run.validation.every=50
run.validation.num_batches=2 run.checkpoint.every=1000 tracking.log_every=1 schedule.num_warmup_steps=5
cluster.num_devices=2 cluster.timeout_seconds=600 resume=auto""".split()


def start(
    packed: Path, parent: Path, name: str, *more: str, variables: dict[str, str] | None = None
) -> subprocess.Popen:
    options = [*OPTIONS, f"data.dir={packed}", f"run.dir={parent}", f"run.name={name}", *more]
    command = [sys.executable, "-m", "mythos.cli.main", "train", *options]
    with (parent / f"{name}.log").open("ab") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"} | (variables or {})
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def ranks_of(launcher: subprocess.Popen) -> dict[str, int]:
    """Process ids by rank."""
    listed = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True, check=True)
    processes = {}
    for process in map(int, listed.stdout.split()):
        variables = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
        processes[next(one for one in variables if one.startswith("RANK=")).removeprefix("RANK=")] = process
    return processes


def wait_for_step(run: Path, step: int, launcher: subprocess.Popen) -> None:
    metrics = run / records.FILE_NAME

    def has_step() -> bool:
        assert launcher.poll() is None, "the run ended too early"
        return metrics.exists() and f'"step":{step},' in metrics.read_text()

    wait_until(has_step)


@pytest.fixture(scope="module")
def whole(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    parent = tmp_path_factory.mktemp("whole")
    assert start(packed, parent, "whole").wait() == 0
    return parent / "whole"


@pytest.mark.slow
def test_whichever_rank_is_asked_all_save_the_same_step_and_resume_bitwise(
    whole: Path, packed: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "part", tmp_path / "part.log"
    for attempt, (number, target) in enumerate(
        [(signal.SIGTERM, "1"), (signal.SIGUSR1, "0"), (signal.SIGTERM, "launcher"), (signal.SIGINT, "launcher")]
    ):
        launcher = start(packed, tmp_path, "part")
        wait_for_step(run, 10 + 15 * attempt, launcher)
        os.kill(launcher.pid if target == "launcher" else ranks_of(launcher)[target], number)
        assert launcher.wait() == PREEMPTED
        last = log.read_text().splitlines()[-1]
        step = int(checkpoints(run / "checkpoints")[-1].name.removeprefix("step-"))
        num_asked = 2 if target == "launcher" else 1
        assert f"SIGTERM, SIGUSR1 or Ctrl-C on {num_asked} of 2 ranks: saved at step {step} of {NUM_STEPS}" in last
        assert 10 + 15 * attempt < step < NUM_STEPS
    assert start(packed, tmp_path, "part").wait() == 0
    for name in (records.TRAIN_LOSS, records.NUM_LOOPS, records.validation_loss(4)):
        assert recorded(whole, name) == recorded(run, name), name
    ours, theirs = saved(whole, NUM_STEPS), saved(run, NUM_STEPS)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_the_ranks_of_a_killed_launcher_end_and_the_run_resumes_bitwise(
    whole: Path, packed: Path, tmp_path: Path
) -> None:
    launcher = start(packed, tmp_path, "part", "run.checkpoint.every=20")
    wait_for_step(tmp_path / "part", 30, launcher)
    ranks = ranks_of(launcher).values()
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(is_running(process) for process in ranks))
    assert start(packed, tmp_path, "part", "run.checkpoint.every=20").wait() == 0
    assert "resuming from" in (tmp_path / "part.log").read_text()
    assert recorded(whole, records.TRAIN_LOSS) == recorded(tmp_path / "part", records.TRAIN_LOSS)
    ours, theirs = saved(whole, NUM_STEPS), saved(tmp_path / "part", NUM_STEPS)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [[], ["parallel.ep_size=1", "cluster.num_devices=1"]])
def test_a_second_interrupt_ends_a_run_at_once_even_one_that_hangs(
    packed: Path, tmp_path: Path, layout: list[str]
) -> None:
    """Two ranks under a launcher, and one process."""
    path = os.pathsep.join([str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")])
    fault = {"rank": -1 if layout else 0, "step": 3, "what": "hang", "once": str(tmp_path / "once")}
    (tmp_path / "once").touch()
    variables = {"PYTHONPATH": path, "FAULT": json.dumps(fault)}
    launcher = start(packed, tmp_path, "part", *layout, variables=variables)
    log, run = tmp_path / "part.log", tmp_path / "part"
    wait_until(lambda: launcher.poll() is not None or not (tmp_path / "once").exists())
    assert launcher.poll() is None, log.read_text()
    ranks = [] if layout else list(ranks_of(launcher).values())
    launcher.send_signal(signal.SIGINT)
    wait_until(lambda: "A second Ctrl-C ends it at once" in log.read_text())
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait() == (-signal.SIGINT if layout else 130)
    wait_until(lambda: not any(is_running(process) for process in ranks))
    assert checkpoints(run / "checkpoints") == []


def is_running(process: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
