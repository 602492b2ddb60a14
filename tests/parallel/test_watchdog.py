"""A process without a heartbeat ends by itself and names the line. Each test runs a process in real time."""

import subprocess
import sys
from pathlib import Path

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
    assert done.returncode == 1
    assert f'File "{tmp_path}/program.py", line 11 in <module>' in done.stderr


def test_without_a_limit_nothing_is_watched(tmp_path: Path) -> None:
    with watched(tmp_path / "logs", None) as watchdog:
        watchdog.beat("anything")
    assert not (tmp_path / "logs").exists()
