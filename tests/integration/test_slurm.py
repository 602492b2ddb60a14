"""Runs submitted to a real SLURM of two nodes are asked to stop, or lose a node or a rank, and end bitwise like the
uninterrupted run."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved, wait_until
from integration.slurm import call, job_field, reason_to_skip, slurm

from mythos.checkpoint.store import checkpoints
from mythos.config import records

ROOT = Path(__file__).parents[2]
NUM_STEPS = 120
OPTIONS = f"""model=debug optim=adamw data.seq_len=32 data.batch_size=8 data.micro_batch_size=2 depth.mean=3
run.num_steps={NUM_STEPS} run.validation.every=60 run.validation.num_batches=4 run.checkpoint.every=10
tracking.log_every=1 parallel.device=cpu parallel=zero1 parallel.ep_size=2 schedule.num_warmup_steps=5
cluster.timeout_seconds=600""".split()
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"}
NODES = ["cluster=slurm", "cluster.num_nodes=2", "cluster.num_devices=1", "cluster.gpus_per_node=0"]

skipped = reason_to_skip()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(skipped is not None, reason=f"there is no SLURM: {skipped}"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    with slurm() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run: two ranks started by one command without SLURM."""
    parent = tmp_path_factory.mktemp("whole")
    options = [*OPTIONS, f"data.dir={packed}", f"run.dir={parent}", "run.name=whole", "cluster.num_devices=2"]
    command = [sys.executable, "-m", "mythos.cli.main", "train", *options]
    subprocess.run(command, env=os.environ | ENVIRONMENT, check=True, capture_output=True)
    return parent / "whole"


def submit(packed: Path, parent: Path, name: str) -> tuple[Path, str]:
    """Submit to two nodes of this machine; returns the run's directory and the job's number."""
    options = [*OPTIONS, *NODES, f"data.dir={packed}", f"run.dir={parent}", f"run.name={name}"]
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), *options]
    done = subprocess.run(
        command, cwd=parent, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    job = re.search(r"^job: +(\d+)$", done.stdout, re.MULTILINE)
    assert job is not None
    return parent / name, job[1]


def last_step(run: Path) -> int:
    steps = checkpoints(run / "checkpoints")
    return int(steps[-1].name.removeprefix("step-")) if steps else 0


def log(run: Path, job: str) -> str:
    path = run / "submissions" / "001" / f"slurm-{job}.log"
    return path.read_text() if path.exists() else ""


def wait_for_step(run: Path, job: str, step: int) -> None:
    """Wait until a run that is still running has a checkpoint at or after ``step``."""
    wait_until(lambda: last_step(run) >= step or job_field(job, "JobState") in ("FAILED", "COMPLETED"))
    assert job_field(job, "JobState") == "RUNNING", log(run, job)[-3000:]


def assert_equal(run: Path, whole: Path) -> None:
    for name in (records.TRAIN_LOSS, records.NUM_LOOPS, records.validation_loss(4)):
        assert recorded(whole, name) == recorded(run, name), name
    ours, theirs = saved(whole, NUM_STEPS), saved(run, NUM_STEPS)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_job_that_is_asked_to_stop_saves_is_requeued_and_resumes_bitwise(
    cluster: Path, whole: Path, packed: Path, tmp_path: Path
) -> None:
    run, job = submit(packed, tmp_path, "asked")
    wait_for_step(run, job, 10)
    assert call("scontrol", "show", "job", job).count("n[0-1]") >= 1
    call("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: "ended with status 77 and is requeued" in log(run, job))
    reached = last_step(run)
    assert reached < NUM_STEPS
    assert f"saved at step {reached}" in log(run, job)
    wait_until(lambda: job_field(job, "JobState") == "COMPLETED")
    assert job_field(job, "Restarts") == "1"
    assert f"resuming from {run}/checkpoints/step-{reached:08d}" in log(run, job)
    assert_equal(run, whole)


def test_a_job_that_loses_a_node_is_requeued_and_resumes_bitwise(
    cluster: Path, whole: Path, packed: Path, tmp_path: Path
) -> None:
    run, job = submit(packed, tmp_path, "lost")
    wait_for_step(run, job, 10)
    call("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    try:
        wait_until(lambda: job_field(job, "JobState") == "PENDING")  # SLURM itself requeues it
        assert last_step(run) < NUM_STEPS
    finally:
        call("scontrol", "update", "nodename=n1", "state=resume")
    wait_until(lambda: job_field(job, "JobState") == "COMPLETED")
    assert job_field(job, "Restarts") == "1"
    assert "resuming from" in log(run, job)
    assert_equal(run, whole)


def process_of_rank(run: Path, rank: int) -> int:
    """The process of a rank, found by its command and environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if str(run / "submissions" / "001").encode() in command and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    raise AssertionError(f"rank {rank} is not running")


def test_a_job_that_loses_a_rank_is_requeued_and_resumes_bitwise(
    cluster: Path, whole: Path, packed: Path, tmp_path: Path
) -> None:
    run, job = submit(packed, tmp_path, "killed")
    wait_for_step(run, job, 10)
    os.kill(process_of_rank(run, 1), signal.SIGKILL)
    wait_until(lambda: "ended with status 137 and is requeued" in log(run, job))
    assert last_step(run) < NUM_STEPS
    wait_until(lambda: job_field(job, "JobState") == "COMPLETED")
    assert job_field(job, "Restarts") == "1"
    assert_equal(run, whole)
