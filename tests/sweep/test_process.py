"""The processes of one job: statuses, restarts, stopping, and that none outlives the sweep."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import wait_until

from mythos.report.jobs import read_job
from mythos.sweep.process import JobProcess, Launch

Scripted = Callable[..., Launch]
COUNT = "from pathlib import Path; p = Path(__file__).with_name('n'); n = int(p.read_text()) if p.exists() else 0\n"
COUNT += "p.write_text(str(n + 1)); import sys\n"
WAIT = "import time; from pathlib import Path; Path(__file__).with_name('up').write_text(''); time.sleep(3600)\n"


def finish(job: JobProcess) -> None:
    wait_until(job.poll)


@pytest.mark.parametrize("status", [75, 77, 78])
def test_a_job_is_restarted_after_a_restartable_status(scripted: Scripted, status: int) -> None:
    launch = scripted(f"{COUNT}sys.exit({status} if n < 2 else 0)")
    finish(JobProcess(launch))
    job = read_job(launch.directory)
    assert (job.state, job.record.num_starts, job.record.overrides) == ("finished", 3, ("a=1",))


def test_restarts_are_bounded(scripted: Scripted) -> None:
    launch = scripted("raise SystemExit(75)", max_restarts=2)
    finish(JobProcess(launch))
    job = read_job(launch.directory)
    assert (job.state, job.record.num_starts) == ("failed (75)", 3)


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("raise SystemExit(76)", "diverged"),
        ("raise SystemExit(2)", "refused"),
        ("1 / 0", "failed (1)"),
        ("import os; os.kill(os.getpid(), 9)", "failed (137)"),
    ],
)
def test_other_statuses_are_final_and_logged(scripted: Scripted, code: str, state: str) -> None:
    launch = scripted(code)
    finish(JobProcess(launch))
    job = read_job(launch.directory)
    assert (job.state, job.record.num_starts) == (state, 1)
    assert ("ZeroDivisionError" in (launch.directory / "log.txt").read_text()) == (state == "failed (1)")


def test_a_stopped_job_gets_a_signal_and_is_not_started_again(scripted: Scripted) -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(77))\n" + WAIT
    for reason, state in (("early", "stopped early"), ("by the sweep", "stopped")):
        launch = scripted(code, name=state.replace(" ", "-"))
        job = JobProcess(launch)
        wait_until((launch.directory / "up").exists)
        assert read_job(launch.directory).state == "running"
        job.stop(reason)
        finish(job)
        assert read_job(launch.directory).state == state
        assert (job.record.status, job.record.num_starts) == (77, 1)


def test_a_job_that_does_not_end_is_killed(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mythos.sweep.process._GRACE_SECONDS", 0.2)
    launch = scripted("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT)
    job = JobProcess(launch)
    wait_until((launch.directory / "up").exists)
    job.stop("by the sweep")
    finish(job)
    assert job.record.status == 137


def test_a_running_job_is_not_started_twice(scripted: Scripted) -> None:
    launch = scripted(WAIT)
    job = JobProcess(launch)
    with pytest.raises(BlockingIOError):
        JobProcess(launch)
    job.kill()
    finish(job)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_killed_sweep_takes_its_job_with_it(scripted: Scripted) -> None:
    launch = scripted(
        "import os; from pathlib import Path; Path(__file__).with_name('pid').write_text(str(os.getpid()))\n" + WAIT
    )
    sweep = (
        "import sys, time; from pathlib import Path; from mythos.sweep import process\n"
        "process._COMMAND = (sys.executable,)\n"
        f"directory = Path({str(launch.directory)!r})\n"
        f"process.JobProcess(process.Launch(directory, (), {launch.arguments!r}, 0)); time.sleep(3600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", sweep])
    wait_until((launch.directory / "up").exists)
    child = int((launch.directory / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not _is_alive(child))
    assert read_job(launch.directory).state == "interrupted"


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_job_does_not_inherit_the_environment_of_a_rank(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "3")
    launch = scripted("import os; print(*sorted(os.environ))")
    finish(JobProcess(launch, {"CUDA_VISIBLE_DEVICES": "1"}))
    names = (launch.directory / "log.txt").read_text().split()
    assert not {"RANK", "WORLD_SIZE", "SLURM_NTASKS"} & set(names)
    assert "CUDA_VISIBLE_DEVICES" in names
    assert os.environ["RANK"] == "3"
