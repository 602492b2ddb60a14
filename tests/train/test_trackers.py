"""Every tracker holds the metrics of ``metrics.jsonl``, and a tracker that fails ends no run."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import metrics_by_step

from mythos.config import tracking
from mythos.config.base import ConfigError
from mythos.config.load import load
from mythos.train.build import train
from mythos.train.run_directory import prepare
from mythos.train.trackers.base import Tracker
from mythos.train.trackers.tolerant import Tolerant
from mythos.train.tracking import build_loggers

pytestmark = pytest.mark.usefixtures("offline_wandb")


def test_an_address_of_mlflow_that_cannot_be_used_is_one_sentence(configure, monkeypatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    config = configure("tracking=mlflow", "run.name=nobody")
    with pytest.raises(ConfigError, match=r"^tracking.kind is mlflow, but the tracker cannot be started \(.*nowhere"):
        build_loggers(config, prepare(config).path, 0)


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow", "trackio", "wandb"])
def test_a_missing_library_is_reported_before_anything_is_written(configure, monkeypatch, tmp_path, kind) -> None:
    config = configure(f"tracking={kind}")
    find = importlib.util.find_spec
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == kind else find(name))
    with pytest.raises(ConfigError, match=rf"^tracking.kind is {kind} but .* run pip install {kind}, or set"):
        prepare(config)
    assert not (tmp_path / "test").exists()


def test_other_ranks_write_nothing(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    config = configure("run.name=elsewhere")
    directory = prepare(config)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert build_loggers(config, directory.path, 0) == []
    names = sorted(path.name for path in directory.path.iterdir())
    assert names == ["config.json", "data.json", "run-id", "tokenizer.json"]


def test_tensorboard_holds_all_metrics(configure) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(first := configure("tracking=tensorboard", "run.num_steps=4", "schedule.cooldown_fraction=0"), prepare(first))
    train(second := configure("tracking=tensorboard", "schedule.cooldown_fraction=0", "resume=auto"), prepare(second))
    run = Path(first.run.dir) / "test"
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    for name in ("train/loss", "loop/state_norm/t00", "val/loss/T04"):
        expected = {step: row[name] for step, row in metrics_by_step(run).items() if name in row}
        values = {event.step: event.value for event in events.Scalars(name)}
        assert values == pytest.approx(expected, rel=1e-6)


def test_mlflow_holds_all_metrics(configure, monkeypatch, tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow").MlflowClient
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    options = ("tracking=mlflow", f"tracking.uri=file://{tmp_path}/mlruns", "schedule.cooldown_fraction=0")
    train(first := configure(*options, "run.num_steps=4"), prepare(first))
    train(second := configure(*options, "resume=auto"), prepare(second))
    run = Path(first.run.dir) / "test"
    store, run_id = client(f"file://{tmp_path}/mlruns"), (run / "mlflow-id").read_text()
    assert store.get_run(run_id).info.status == "FINISHED"
    assert store.get_run(run_id).data.tags["model.dim"] == str(first.model.dim)
    for name in ("train/loss", "loop/state_norm/t00", "val/loss/T04"):
        expected = {step: row[name] for step, row in metrics_by_step(run).items() if name in row}
        assert {metric.step: metric.value for metric in store.get_metric_history(run_id, name)} == expected


TRACKIO = """
from mythos.config.tracking import TrackioTracking
from mythos.train.trackers.trackio import TrackioTracker
for is_resumed, step in ((False, 1), (True, 2)):
    tracker = TrackioTracker(TrackioTracking(project="p"), "r", is_resumed, {"seed": 0})
    tracker.log_metrics({"train/loss": 1.5 * step}, step)
    tracker.alert("dead expert", "no token chose it")
    tracker.finalize("success")
"""


def test_trackio_holds_all_metrics_of_both_starts(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}  # trackio reads them at its import
    subprocess.run([sys.executable, "-c", TRACKIO], env=env, check=True, capture_output=True)
    with sqlite3.connect(tmp_path / "p.db") as store:
        rows = store.execute("select run_name, step, metrics from metrics order by step").fetchall()
        alerts = store.execute("select title, step from alerts order by step").fetchall()
    assert [(name, step, json.loads(metrics)["train/loss"]) for name, step, metrics in rows] == [
        ("r", 1, 1.5),
        ("r", 2, 3.0),
    ]
    assert alerts == [("dead expert", 1), ("dead expert", 2)]


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^tracking\.uri: holds an address with a password or token, "):
        load(["model=debug", "tracking=mlflow", "tracking.uri='https://me:pw@host:5000'"])
    load(["model=debug", "tracking=mlflow", "tracking.uri='https://host:5000/a@b'"])


def test_a_profile_beyond_the_last_step_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start is 9 and .*num_steps is 3, .* run.num_steps=10 .*\.$"):
        load(["model=debug", "run.num_steps=10", "schedule.num_warmup_steps=1", "tracking.profile={start: 9}"])
    load(["model=debug", "run.num_steps=11", "schedule.num_warmup_steps=1", "tracking.profile={start: 9}"])


def test_the_run_continues_without_a_tracker_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[int | None] = []

    class Breaking(Tracker):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if step == 3:
                raise ConnectionResetError("the service is gone\nsecond line")
            taken.append(step)

        def end(self, status: str) -> None:
            raise AssertionError("a tracker that has failed is not called")

    tracker = Tolerant(Breaking())
    for step in range(1, 6):
        tracker.log_metrics({"train/loss": 1.0}, step)
    tracker.alert("title", "text")
    tracker.finalize("success")
    assert taken == [1, 2]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("mythos: Breaking failed at step 3 (the service is gone); the run continues without it")
