"""One command starts several ranks, reports once and returns the right exit status."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.config.cluster import LocalCluster
from mythos.config.exit_status import PREEMPTED
from mythos.parallel.launcher import check_launcher, launch, rank_environments
from mythos.parallel.stopping import stop_request, sudden_interrupts
from parallel.ranks import ENVIRONMENT, SMALL


def start(*overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mythos.cli.main", "train", *SMALL, "parallel=zero1", *overrides]
    return subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)


def test_one_command_starts_the_ranks_and_reports_once(packed: Path, tmp_path: Path) -> None:
    paths = (f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=run", "cluster.num_devices=2")
    done = start(*paths)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == "2 ranks (1 nodes x 2), ZeRO 1, 2 micro-batches a step on each"
    assert done.stdout.count("run directory:") == 1
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr

    again = start(*paths)
    assert again.returncode == 2
    assert again.stderr.count("already holds a run") == 1

    lost = start(*paths, f"resume={tmp_path / 'nowhere'}")
    assert lost.returncode == 2, "the status of the rank, not of torchrun"
    assert lost.stderr.count("no checkpoint here") == 1
    assert "Traceback" not in lost.stderr


def test_a_launcher_starts_the_ranks_of_its_own_node_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"num_nodes is 2 but NODE_RANK, MASTER_ADDR, MASTER_PORT are not set"):
        launch(LocalCluster(num_nodes=2, num_devices=4), ["train"], 0.0)
    for name, value in {"NODE_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "29400"}.items():
        monkeypatch.setenv(name, value)
    ranks = rank_environments(LocalCluster(num_nodes=2, num_devices=4), 12.5)
    assert {rank["MYTHOS_STARTED_AT"] for rank in ranks} == {"12.5"}
    assert [rank["RANK"] for rank in ranks] == ["4", "5", "6", "7"]
    assert [rank["LOCAL_RANK"] for rank in ranks] == ["0", "1", "2", "3"]
    assert {(rank["WORLD_SIZE"], rank["MASTER_ADDR"], rank["MASTER_PORT"]) for rank in ranks} == {
        ("8", "first", "29400")
    }


@pytest.mark.parametrize(
    ("codes", "status"),
    [([0, 0], 0), ([75, 1], 1), ([75, 75], 75), ([78, 75], 78), ([0, -9], 137), ([77, 77], 77), ([2, 2], 2)],
)
def test_the_status_is_that_of_the_rank_that_failed_first_by_itself(
    monkeypatch: pytest.MonkeyPatch, codes: list[int], status: int
) -> None:
    """The first rank ends at once, the second 0.3 seconds later."""
    ends = [
        f"import os, time; time.sleep({delay}); os._exit({code})"
        if code >= 0
        else f"import os, time; time.sleep({delay}); os.kill(os.getpid(), {-code})"
        for code, delay in zip(codes, (0.0, 0.3), strict=True)
    ]
    started = iter(ends)
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: popen([sys.executable, "-c", next(started)], **options)
    )
    assert launch(LocalCluster(num_devices=2), ["train"], 0.0) == status


@pytest.mark.parametrize(
    "signals", [[signal.SIGUSR1], [signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]]
)
def test_a_rank_that_is_signalled_before_it_handles_signals_was_preempted(
    monkeypatch: pytest.MonkeyPatch, signals: list[int], capfd
) -> None:
    """It has nothing to save. A second Ctrl-C kills the ranks."""
    popen, started = subprocess.Popen, []

    def start_sleeper(command: list[str], **options) -> subprocess.Popen:
        started.append(popen([sys.executable, "-c", "import time; time.sleep(600)"], **options))
        if len(started) == 2:
            for number in signals:
                os.kill(os.getpid(), number)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start_sleeper)
    handler = signal.getsignal(signals[0])
    if len(signals) == 1:
        assert launch(LocalCluster(num_devices=2), ["train"], 0.0) == PREEMPTED
    else:
        with pytest.raises(KeyboardInterrupt):
            launch(LocalCluster(num_devices=2), ["train"], 0.0)
        assert {rank.returncode for rank in started} <= {-signal.SIGKILL, -signal.SIGTERM}
    assert signal.getsignal(signals[0]) == handler
    assert capfd.readouterr().err.count("A second Ctrl-C ends it at once") == (signal.SIGINT in signals)


ORPHAN = """
import os, sys, time
from pathlib import Path
from mythos.parallel.launcher import die_with_launcher

launcher = os.getppid()
print("started", flush=True)
while os.getppid() == launcher:
    time.sleep(0.01)
die_with_launcher()
Path(sys.argv[1]).touch()
"""


def test_a_rank_whose_launcher_was_killed_before_it_could_ask_for_its_end_ends(tmp_path: Path) -> None:
    child = [sys.executable, "-c", ORPHAN, str(tmp_path / "continued")]
    code = f"""
import subprocess, time
from mythos.config.cluster import LocalCluster
from mythos.parallel.launcher import rank_environments

(environment,) = rank_environments(LocalCluster(), 0.0)
subprocess.Popen({child!r}, env=environment)
time.sleep(600)
"""
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    launcher.stdout.readline()
    launcher.kill()
    launcher.wait()
    assert launcher.stdout.read() == b"", "the rank has ended"
    assert not (tmp_path / "continued").exists()


def test_a_launcher_that_ignores_interrupts_continues_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell starts its background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_request() as request, sudden_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            assert not request.is_asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_launcher_that_starts_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"1 nodes x 2 devices are 2 processes, but the launcher started 3"):
        check_launcher(LocalCluster(num_devices=2))
    check_launcher(LocalCluster(num_devices=3))


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT"])
@pytest.mark.parametrize("text", ["two", "", "-1", "1.5"])
def test_a_variable_of_a_launcher_that_is_no_number_is_refused(monkeypatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    expected = f"^{name} is '{text}', but launchers set a whole number; correct or unset the variable.$"
    with pytest.raises(ConfigError, match=expected):
        check_launcher(LocalCluster())
    with pytest.raises(ConfigError, match=expected):
        rank_environments(LocalCluster(num_devices=2), 0.0)
