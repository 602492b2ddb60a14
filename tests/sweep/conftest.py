"""A tiny run for sweeps, and jobs that run a script, for behaviour that a training cannot be made to show on demand."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mythos.sweep import process
from mythos.sweep.process import Launch

CHILD = """
import json, os, sys
from pathlib import Path
kind, folder = sys.argv[1], Path(__file__).parent
with (folder / "calls").open("a") as file:
    file.write(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), *sys.argv[1:]]) + "\\n")
print("child runs", kind)
status = folder / f"status-{kind}"
sys.exit(int(status.read_text()) if status.exists() else 0)
"""
"""A child that logs its arguments and ends with the status in a file."""
SMALL = """model=debug-dense data.seq_len=32 data.batch_size=4 data.micro_batch_size=4 depth.mean=2 run.num_steps=4
run.validation.every=2 run.validation.num_batches=2 run.validation.num_loops=[1,2] run.checkpoint.every=4
tracking.log_every=1 telemetry.trace_every=100 parallel.device=cpu schedule.num_warmup_steps=1""".split()


@pytest.fixture
def small(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a run of a few seconds, in a sweep called ``mine`` under ``tmp_path``."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("mythos.sweep.drive._POLL_SECONDS", 0.05)
    return [*SMALL, f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=mine"]


class Child:
    """A script that runs instead of ``mythos``: logs its calls, and ends with a given status."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "child.py").write_text(CHILD)

    def set_status(self, kind: str, status: int) -> None:
        """Let commands of this kind end with a status."""
        (self.folder / f"status-{kind}").write_text(str(status))

    def calls(self) -> list[list[str]]:
        """The devices and the arguments of each call since the previous query."""
        path = self.folder / "calls"
        text = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Child:
    """A child that only logs its calls."""
    child = Child(tmp_path_factory.mktemp("child"))
    monkeypatch.setattr(process, "_COMMAND", (sys.executable, str(child.folder / "child.py")))
    return child


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Launch]:
    """A function that makes a job of Python code, which runs instead of ``mythos``."""

    def make(code: str, name: str = "job", max_restarts: int = 3) -> Launch:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        (directory / "child.py").write_text(code)
        return Launch(directory, ("a=1",), (str(directory / "child.py"),), max_restarts)

    monkeypatch.setattr(process, "_COMMAND", (sys.executable,))
    return make
