"""A process without a heartbeat ends by itself and names the line. Each test runs a process in real time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mythos.config.exit_status import STALLED
from mythos.parallel.watchdog import watched

PROGRAM = """
import re, time
from pathlib import Path
from mythos.parallel.watchdog import watched

with watched(Path({logs!r}), {seconds}) as watchdog:
    for _ in range({num_beats}):
        time.sleep(0.5)
        watchdog.beat("in step 6, forward")
    watchdog.beat("in step 7, forward")
    {line}
"""


def run(logs: Path, line: str, seconds: float = 3.0, num_beats: int = 0) -> subprocess.CompletedProcess:
    program = logs / "program.py"
    program.write_text(PROGRAM.format(logs=str(logs / "logs"), line=line, seconds=seconds, num_beats=num_beats))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)


def test_a_process_without_a_heartbeat_names_the_line(tmp_path: Path) -> None:
    done = run(tmp_path, "time.sleep(600)")
    assert done.returncode == STALLED
    stacks = (tmp_path / "logs" / "rank-0.stacks").read_text()
    for text in (done.stderr, stacks):
        assert text.startswith("mythos: rank 0 of 1 on ")
        sentence = text.splitlines()[0]
        assert "has not moved for 3 seconds: in step 7, forward, at " in sentence
        assert (tmp_path / "logs" / "rank-0.stacks").as_posix() in sentence
        assert f'File "{tmp_path}/program.py", line 11 in <module>' in text


def test_beats_and_a_normal_end_print_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "pass", num_beats=8)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "logs").exists()


def test_a_process_that_holds_the_interpreters_lock_ends_too(tmp_path: Path) -> None:
    """The pattern needs 2^50 steps in C with the lock held, so no Python thread runs."""
    done = run(tmp_path, "re.match('(a+)+$', 'a' * 50 + 'b')")
    assert done.returncode == -signal.SIGKILL
    assert "has held its interpreter lock for 3 seconds" in done.stderr
    assert f'File "{tmp_path}/program.py", line 11 in <module>' in done.stderr


SUSPENDED = """
import re, sys, time
from pathlib import Path
from mythos.parallel.watchdog import watched

with watched(Path(sys.argv[1]), 2.0):
    print("watched", flush=True)
    {line}
"""


@pytest.mark.parametrize(
    ("line", "is_alone"), [("time.sleep(1)", False), ("re.match('(a+)+$', 'a' * 22 + 'b'); time.sleep(0.5)", True)]
)
def test_time_in_which_a_process_is_suspended_is_not_counted(tmp_path: Path, line: str, is_alone: bool) -> None:
    """The process only, or all of its session as a scheduler does it; it waits, or computes with the lock held."""
    command = [sys.executable, "-c", SUSPENDED.format(line=line), str(tmp_path / "logs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        send = os.kill if is_alone else os.killpg
        send(process.pid, signal.SIGSTOP)
        time.sleep(3.0)
        send(process.pid, signal.SIGCONT)
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert not (tmp_path / "logs").exists()


def test_without_a_limit_nothing_is_watched(tmp_path: Path) -> None:
    with watched(tmp_path / "logs", None) as watchdog:
        watchdog.beat("anything")
    assert not (tmp_path / "logs").exists()
