"""A tiny run for sweeps, and jobs whose child is a script, for what no training can be made to do on demand."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mythos.sweep import process
from mythos.sweep.process import Launch

TOLD = """
import json, os, sys
from pathlib import Path
kind, place = sys.argv[1], Path(__file__).parent
with (place / "calls").open("a") as file:
    file.write(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), *sys.argv[1:]]) + "\\n")
print("child says", kind)
told = place / f"status-{kind}"
sys.exit(int(told.read_text()) if told.exists() else 0)
"""
"""A child that writes down its words and ends with the status that a file tells it."""
SMALL = """model=debug-dense data.seq_len=32 data.batch_size=4 data.micro_batch_size=4 depth.mean=2 run.num_steps=4
run.validation.every=2 run.validation.num_batches=2 run.validation.num_loops=[1,2] run.checkpoint.every=4
tracking.log_every=1 telemetry.trace_every=100 parallel.device=cpu schedule.num_warmup_steps=1""".split()


@pytest.fixture
def small(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a run of some seconds, in a sweep called ``mine`` under ``tmp_path``."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("mythos.sweep.drive._POLL_SECONDS", 0.05)
    return [*SMALL, f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=mine"]


class Child:
    """What runs in the place of ``mythos``: tells what it was asked for, and ends as it is told."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "child.py").write_text(TOLD)

    def fails(self, kind: str, status: int) -> None:
        """Have commands of this kind end with a status."""
        (self.place / f"status-{kind}").write_text(str(status))

    def calls(self) -> list[list[str]]:
        """The devices and the words of each call since the last question."""
        path = self.place / "calls"
        text = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Child:
    """A child that does nothing but tell."""
    made = Child(tmp_path_factory.mktemp("child"))
    monkeypatch.setattr(process, "_COMMAND", (sys.executable, str(made.place / "child.py")))
    return made


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Launch]:
    """A function that makes a job of Python code, which runs in the place of ``mythos``."""

    def make(code: str, name: str = "job", max_restarts: int = 3) -> Launch:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        (directory / "child.py").write_text(code)
        return Launch(directory, ("a=1",), (str(directory / "child.py"),), max_restarts)

    monkeypatch.setattr(process, "_COMMAND", (sys.executable,))
    return make
