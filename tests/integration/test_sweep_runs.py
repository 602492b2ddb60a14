"""Sweeps of real runs: on a SLURM of two nodes with the sweep's process killed, and a search that stops jobs early."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_until
from integration.slurm import reason_to_skip, slurm

SMALL = """model=debug-dense data.seq_len=32 data.batch_size=4 data.micro_batch_size=4 depth.mean=2
run.validation.every=10 run.validation.num_batches=2 run.validation.num_loops=[1,2] run.checkpoint.every=10
tracking.log_every=5 telemetry.trace_every=1000 parallel.device=cpu schedule.num_warmup_steps=1 optim=adamw""".split()


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mythos.cli.main", "sweep", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def table(sweep: Path) -> list[dict]:
    return json.loads((sweep / "table.json").read_text())


def num_begun(sweep: Path) -> int:
    return len(list(sweep.glob("*/metrics.jsonl")))


def num_recorded(sweep: Path) -> int:
    """Lines that all jobs have recorded, one per five steps."""
    return sum(path.read_text().count("\n") for path in sweep.glob("*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))
def test_six_slurm_jobs_survive_a_killed_sweep(packed: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    tmp_path.chmod(0o755)
    launcher = "{kind: slurm, has_gpus: false, num_cpus: 4, num_parallel: 4}"
    options = [*SMALL, f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=mine", "run.num_steps=100"]
    options += [f"sweep.launcher={launcher}", "optim.lr=1e-3,3e-3,1e-2", "run.seed=0,1"]
    options += ['sweep.after=["report {run}"]', 'sweep.at_end=["report {sweep} --to {sweep}/page"]']
    with slurm():
        first = start(*options)
        wait_until(lambda: num_begun(tmp_path / "mine") >= 1)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        out = finish(start(*options))
    print(out)
    rows = table(tmp_path / "mine")
    assert [(row["state"], row["num_starts"], row["step"]) for row in rows] == [("finished", 1, 100)] * 6
    assert len(list((tmp_path / "mine" / "slurm").glob("*_submission.sh"))) == 6, "no job was submitted twice"
    assert len(list((tmp_path / "mine").glob("*/report/index.html"))) == 6
    assert (tmp_path / "mine" / "page" / "index.html").is_file()
    assert min(row["last"]["2"] for row in rows) < 3.5


@pytest.mark.slow
def test_a_local_sweep_resumes_after_ctrl_c_and_after_a_kill(packed: Path, tmp_path: Path) -> None:
    options = [*SMALL, f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=mine", "run.num_steps=400"]
    options += ["run.seed=0,1,2", "sweep.launcher.num_parallel=2"]
    for ending in (signal.SIGINT, signal.SIGKILL):
        before = num_recorded(tmp_path / "mine")
        process = start(*options)
        wait_until(lambda before=before: num_recorded(tmp_path / "mine") > before + 6)
        process.send_signal(ending)
        process.communicate()
        if ending == signal.SIGINT:
            assert process.returncode == 130
            assert {row["state"] for row in table(tmp_path / "mine")} <= {"stopped", "not started", "finished"}
    print(finish(start(*options)))
    rows = table(tmp_path / "mine")
    assert [(row["state"], row["step"]) for row in rows] == [("finished", 400)] * 3
    assert max(row["num_starts"] for row in rows) >= 2


@pytest.mark.slow
def test_a_search_stops_jobs_that_do_not_learn(packed: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    ranges = "{optim.lr: {kind: real, low: 1e-6, high: 1e-1, log: true}}"
    stop = "{kind: median, num_startup_trials: 2, num_warmup_steps: 20}"
    search = f"kind: random, num_trials: 6, seed: 1, objective_num_loops: 2, ranges: {ranges}, stop: {stop}"
    options = [*SMALL, f"data.dir={packed}", f"run.dir={tmp_path}", "sweep.name=mine", "run.num_steps=400"]
    out = finish(start(*options, f"sweep.search={{{search}}}"))
    print(out)
    rows = table(tmp_path / "mine")
    states = [row["state"] for row in rows]
    assert len(rows) == 6
    assert set(states) == {"finished", "stopped early"}
    early = [row for row in rows if row["state"] == "stopped early"]
    finished = [row["last"]["2"] for row in rows if row["state"] == "finished"]
    assert all(row["step"] < 400 and row["last"]["2"] > min(finished) for row in early)
    assert all(list((tmp_path / "mine" / row["job"] / "checkpoints").glob("step-*")) for row in early), "saved first"
