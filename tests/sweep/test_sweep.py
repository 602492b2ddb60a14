"""A real sweep of two runs in their own processes: run, resumed, tabulated and reported."""

import csv
import json
from pathlib import Path

import pytest
from helpers import recorded

from mythos.cli.main import main
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.report.jobs import read_jobs
from mythos.sweep.drive import drive
from mythos.sweep.local import LocalQueue
from mythos.sweep.plan import make


def test_two_jobs_run_and_are_compared(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "-m", *small, "optim.lr=1e-3,1e-2", "sweep.launcher.num_parallel=2"]
    assert main(command) == 0
    sweep, names = tmp_path / "mine", ["optim.lr-0.001", "optim.lr-0.01"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["job", "optim.lr", "state", "step", "T=1", "T=2", "tokens/s", "wall", "time"]
    rows = json.loads((sweep / "table.json").read_text())
    assert [(row["job"], row["state"], row["step"], row["num_starts"]) for row in rows] == [
        (name, "finished", 4, 1) for name in names
    ]
    for row, line in zip(rows, lines[1:3], strict=True):
        losses = recorded(sweep / row["job"], records.validation_loss(2))
        assert row["last"]["2"] == losses[4]
        assert row["best"]["2"] == min(losses.values())
        assert f"{losses[4]:.4f}" in line
    with (sweep / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["optim.lr"] for row in table] == ["0.001", "0.01"]
    assert float(table[0]["last_val_loss_T2"]) == rows[0]["last"]["2"]

    assert main(command) == 0  # no job is left
    assert [row["num_starts"] for row in json.loads((sweep / "table.json").read_text())] == [1, 1]
    assert main(["train", "-m", *small, "optim.lr=1e-3,2e-2"]) == 2
    assert "optim.lr-0.02: new job" in capsys.readouterr().err

    assert main(["report", str(sweep)]) == 0
    page = (sweep / "report" / "index.html").read_text()
    assert "<h1>mine</h1>" in page
    assert '"parallel_coordinates"' in page
    assert all(f"<td>{name}</td><td>finished</td>" in page for name in names)


class RecordingSource:
    """A source of jobs that stores their statuses."""

    def __init__(self, jobs: list) -> None:
        self.jobs, self.ends = jobs, {}

    def next(self):
        return self.jobs.pop(0) if self.jobs else None

    def watch(self, queue) -> None:
        self.most = max(getattr(self, "most", 0), len(queue.running))

    def ended(self, record) -> bool:
        self.ends[record.name] = record.status
        return False


def test_devices_are_assigned_and_returned(small: list[str], monkeypatch: pytest.MonkeyPatch, scripted) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    code = "import os, time; from pathlib import Path; print(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    code += "place = Path(__file__).parent; (place / 'up').touch()\n"
    code += "while len(list(place.parent.glob('*/up'))) < 2: time.sleep(0.02)\n"
    plan = make([*small, "parallel.device=auto", "run.seed=0,1,2"])
    for job in plan.jobs:
        object.__setattr__(job, "arguments", scripted(code, name=job.name).arguments)
    source, queue = RecordingSource(list(plan.jobs)), LocalQueue(plan.sweep.launcher, 0)
    queue.check(list(plan.jobs))
    drive(source, queue)
    assert set(source.ends.values()) == {0}
    assert source.most == 2
    seen = [(job.directory / "log.txt").read_text().strip() for job in plan.jobs]
    assert seen[:2] == ["4", "7"]
    assert seen[2] in ("4", "7")


def test_a_job_that_needs_more_devices_than_there_are_is_refused(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    options = ["parallel=ddp", "optim=adamw", "parallel.device=auto", "data.micro_batch_size=2"]
    plan = make([*small, *options, "cluster.num_devices=1,2"])
    with pytest.raises(ValueError, match=r"job cluster.num_devices-2: cluster.num_devices is 2 but .* shows 1 devices"):
        LocalQueue(plan.sweep.launcher, 0).check(list(plan.jobs))


@pytest.mark.parametrize(
    "refused",
    [["cluster.num_devices=1,2", "parallel=ddp", "optim=adamw", "parallel.device=auto"], ["sweep.launcher.kind=slurm"]],
    ids=["devices", "slurm"],
)
def test_a_refused_sweep_leaves_nothing(small: list[str], monkeypatch, tmp_path: Path, refused: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PATH", str(tmp_path))
    command = [*small, "data.micro_batch_size=2", "run.seed=0,1", *refused]
    assert main(["sweep", *command]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_failed_job_does_not_end_the_sweep(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], scripted
) -> None:
    # Every child is a script here: the first job diverges, the second is killed, the third succeeds.
    code = "import sys; job = [a for a in sys.argv if a.startswith('run.name=')][-1]\n"
    code += "sys.exit({'0': 76, '1': 137, '2': 0}[job[-2]])\n"
    child = scripted(code).arguments[0]
    from mythos.sweep import process

    process._COMMAND = (*process._COMMAND, child)
    command = ["sweep", *small, "run.seed=0,1,2"]
    assert main(command) == 1
    states = {row["job"]: (row["state"], row["num_starts"]) for row in _table(tmp_path / "mine")}
    assert states == {"run.seed-0": ("diverged", 1), "run.seed-1": ("failed (137)", 1), "run.seed-2": ("finished", 1)}
    assert main(command) == 1
    assert [row["num_starts"] for row in _table(tmp_path / "mine")] == [1, 2, 1]
    assert main(["sweep", "--table", str(tmp_path / "mine")]) == 0
    assert "the run diverges" in capsys.readouterr().err


def _table(sweep: Path) -> list[dict]:
    return json.loads((sweep / "table.json").read_text())


def test_a_folder_that_is_not_a_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--table", str(tmp_path)]) == 2
    assert "has no valid sweep.json" in capsys.readouterr().err


def test_a_plan_that_names_jobs_elsewhere_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {"schema": records.SCHEMA, "jobs": [{"name": "../other", "overrides": []}]}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match=r"names the job '\.\./other', which is not in the sweep's folder"):
        read_jobs(tmp_path)
