"""An offline W&B run is read back from its file: metrics, charts, configuration, alerts, and its refusals."""

import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import metrics_by_step, wait_until

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.train.build import train
from mythos.train.run_directory import prepare
from mythos.train.tracking import build_loggers

pytestmark = pytest.mark.usefixtures("offline_wandb")
BLOCK = 32_768


def wandb_records(path: Path) -> list:
    """The protobuf records of a finished run's ``.wandb`` file; W&B's own process may still be writing the last one."""
    from google.protobuf.message import DecodeError

    entries: list = []

    def is_complete() -> bool:
        try:
            entries[:] = parse(path.read_bytes())
        except DecodeError:
            return False
        return any(record.WhichOneof("record_type") == "exit" for record in entries)

    wait_until(is_complete)
    return entries


def parse(data: bytes) -> Iterator:
    """LevelDB's log format behind a header of seven bytes: fragments that do not cross blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert data[:6] == b"" or struct.unpack("<4sH", data[:6]) == (b":W&B", 0xBEE1)
    offset, parts = 7, b""
    while offset + 7 <= len(data):
        if BLOCK - offset % BLOCK < 7:
            offset += BLOCK - offset % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + 7])  # kind: 1 whole, 2 first, 3 middle, 4 last
        part = data[offset + 7 : offset + 7 + length]
        parts = part if kind in (1, 2) else parts + part
        offset += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record


def items(rows) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in rows}


def history(path: Path) -> list[dict]:
    return [items(r.history.item) for r in wandb_records(path) if r.WhichOneof("record_type") == "history"]


def table(path: Path, row: dict, name: str) -> dict:
    """Columns and data of a table that a row of history refers to."""
    table = json.loads((path.parent / "files" / row[f"{name}/path"]).read_text())
    return {part: table[part] for part in ("columns", "data")}


def is_scalar(name: str) -> bool:
    return not name.startswith(("_", "heatmaps/", "arrays/", "over_loops/", "tables/"))


def test_an_offline_wandb_run_holds_all_metrics_and_continues_after_a_resume(configure) -> None:
    options = ("tracking=wandb", "tracking.mode=offline", "telemetry.trace_every=2", "schedule.cooldown_fraction=0")
    train(first := configure(*options, "run.num_steps=4"), prepare(first))
    train(second := configure(*options, "resume=auto"), prepare(second))
    run = Path(first.run.dir) / "test"
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert [path.stem for path in files] == [f"run-{(run / 'wandb-id').read_text()}"] * 2
    halves = [history(path) for path in files]
    assert [[row["step"] for row in half] for half in halves] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    rows = {row["step"]: row for half in halves for row in half}
    written = metrics_by_step(run)
    assert {step for step, row in rows.items() if "loop/state_norm/t00" in row} == {2, 4, 6, 8}
    for step, row in rows.items():
        assert row["_step"] == step
        assert {name: value for name, value in row.items() if is_scalar(name)} == written[step]
    assert rows[8]["heatmaps/loop/state_norm/_type"] == "html-file"
    page = (files[1].parent / "files" / rows[8]["heatmaps/loop/state_norm/path"]).read_text()
    assert "step 2<" in page
    assert "step 8<" in page
    lines = table(files[1], rows[8], "over_loops/loop/state_norm_table")
    assert lines["columns"] == ["step", "lineKey", "lineVal"]
    shown = {f"step {s:07d}": s for s in (2, 4, 6, 8)}
    assert {key for _, key, _ in lines["data"]} == set(shown)
    for loop, key, value in lines["data"]:
        assert value == written[shown[key]][f"loop/state_norm/t{loop:02d}"]


def test_wandb_receives_configuration_axes_code_and_environment(configure) -> None:
    pytest.importorskip("wandb")
    options = ("tracking=wandb", "tracking.mode=offline")
    train(config := configure(*options, "run.num_steps=2", "run.name=facts"), prepare(config))
    run = Path(config.run.dir) / "facts"
    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    entries = wandb_records(path)
    settings: dict = {}
    for record in entries:
        if record.WhichOneof("record_type") == "run":
            settings |= items(record.run.config.update)
            assert (record.run.run_group, record.run.project) == ("facts", "mythos")
            assert not record.run.git.remote_url
    assert settings["model"]["dim"] == config.model.dim
    provenance = json.loads((run / "provenance" / "step-00000000.json").read_text())
    assert settings["code"] == provenance["code"]
    assert settings["environment"] == provenance["environment"]
    axes = [record.metric for record in entries if record.WhichOneof("record_type") == "metric"]
    assert [(m.name or m.glob_name, m.step_metric) for m in axes][:3] == [
        ("step", ""),
        ("tokens", "step"),
        ("*", "step"),
    ]


def test_the_summary_of_a_wandb_run_is_short_and_charts_have_the_rest(configure) -> None:
    depths = f"run.validation.num_loops={list(range(1, 25))}"
    options = ("tracking=wandb", "tracking.mode=offline", "run.name=short", depths, "telemetry.trace_every=2")
    train(config := configure(*options, depth=("depth.mean=8", "depth.max_loops=16")), prepare(config))
    run = Path(config.run.dir) / "short"
    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    rows = history(path)
    updates = [r.summary.update for r in wandb_records(path) if r.WhichOneof("record_type") == "summary"]
    summary = {name: value for update in updates for name, value in items(update).items()}
    assert len(summary) <= 25 < 150 < len({name for row in rows for name in row})
    assert sorted(name for name in summary if name.startswith("val/")) == [
        f"val/loss/T{num_loops:02d}" for num_loops in (1, 5, 9, 13, 16, 20, 24)
    ]
    assert {"step", "tokens", "train/loss", "train/grad_norm", "depth/mean", "speed/mean_tokens_per_second"} < set(
        summary
    )
    assert summary["train/loss"] == rows[-1]["train/loss"]
    assert not any(re.search(r"/[tl]\d\d$", name) for name in summary)


def test_alerts_arrays_and_layers_reach_wandb(configure, tmp_path: Path) -> None:
    config = configure("tracking=wandb", "tracking.mode=offline", "run.name=alerted")
    directory = prepare(config)
    _, tracker = build_loggers(config, directory.path, 0)
    tracker.log_metrics({"train/loss": math.nan}, 1)
    tracker.log_metrics({"experts/load_violation/l01/t00": 0.5, "loop/state_norm/t00": 1.0}, 1)
    load = [[[layer, loop, 7.0] for loop in range(3)] for layer in range(2)]
    tracker.log_arrays({"experts/overlap": [[1.0, 0.5], [0.5, 1.0]], "experts/load": load}, 1)
    tracker.alert("non-finite loss", "train/loss is NaN at step 1.")
    tracker.finalize("failed")
    (path,) = directory.path.glob("wandb/offline-run-*/run-*.wandb")
    (alert,) = [r.alert for r in wandb_records(path) if r.WhichOneof("record_type") == "alert"]
    assert (alert.title, alert.text) == ("non-finite loss", "train/loss is NaN at step 1.")
    (row,) = history(path)
    assert math.isnan(float(row["train/loss"]))
    assert row["arrays/experts/overlap/_type"] == row["arrays/experts/load/_type"] == "html-file"
    loads, layers = (table(path, row, f"tables/{name}") for name in ("experts/load", "layers"))
    assert loads["columns"] == ["layer", "loop", "expert 0", "expert 1", "expert 2"]
    assert loads["data"] == [[layer, loop, layer, loop, 7] for layer in range(2) for loop in range(3)]
    assert layers == {"columns": ["layer", "loop", "experts/load_violation"], "data": [[1, 0, 0.5]]}


class Recorder:
    """A W&B run that counts the values of each row."""

    starting_step = 0

    def __init__(self, sent: list[int]) -> None:
        self.sent = sent

    def define_metric(self, name: str, **_: str) -> None:
        """Ignore axes."""

    def log(self, row: dict, step: int) -> None:
        assert row["step"] == step
        self.sent.append(len(row) - 1)


def test_wandb_receives_bounded_data_in_a_million_steps(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    from mythos.train.trackers.wandb import WandbTracker

    sent: list[int] = []
    config = configure("run.num_steps=1000000", "tracking=wandb", "tracking.max_cells=100000")
    monkeypatch.setattr("wandb.init", lambda **_: pytest.fail("opened too early") if sent else Recorder(sent))
    tracker = WandbTracker(config.tracking, config, prepare(config).path, {})
    trace = {f"loop/state_norm/t{loop:02d}": 1.0 for loop in range(32)}
    for step in range(50, 1_000_001, 50):
        tracker.log_metrics(trace, step)
    cells, charts = [n for n in sent if n >= 32], [n for n in sent if n < 32]
    assert 90_000 < 32 * len(cells) <= 100_064
    assert len(charts) <= 51


def test_records_of_one_kind_at_one_step_are_all_sent(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    from mythos.train.trackers.wandb import WandbTracker

    sent: list[int] = []
    config = configure("tracking=wandb", "tracking.max_cells=8")
    monkeypatch.setattr("wandb.init", lambda **_: Recorder(sent))
    tracker = WandbTracker(config.tracking, config, prepare(config).path, {})
    for step in range(1, 9):
        tracker.log_metrics({"train/loss": 1.0, "tokens": 1.0}, step)
        tracker.log_metrics({"train/other": 1.0, "train/more": 1.0}, step)
    assert len(sent) == 2 * len({1 // 2, 2 // 2, 4 // 2, 6 // 2, 8 // 2})


def test_a_refusal_of_wandb_is_reported_in_one_sentence(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr("wandb.init", refuse)
    config = configure("tracking=wandb", "run.name=nobody")
    with pytest.raises(ConfigError, match=r"^tracking.mode is online but W&B refused .* set tracking.mode=offline\.$"):
        build_loggers(config, prepare(config).path, 0)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WANDB_CONSOLE", "screen", r"tracker cannot be started \(console: input should be .*'redirect'"),
        ("WANDB_BASE_URL", "nowhere", r"tracker cannot be started \(base_url: input should be a valid url"),
    ],
)
def test_a_variable_that_wandb_refuses_is_one_sentence(configure, monkeypatch, variable, value, expected) -> None:
    import wandb

    monkeypatch.setenv(variable, value)
    wandb.teardown()
    config = configure("tracking=wandb", "tracking.mode=offline", "run.name=nobody")
    with pytest.raises(ConfigError, match=expected) as caught:
        build_loggers(config, prepare(config).path, 0)
    assert "\n" not in str(caught.value)
    assert value not in str(caught.value)


@pytest.mark.parametrize("mode", ["oflfine", ""])
def test_an_unknown_mode_of_wandb_is_refused_before_anything_is_written(configure, monkeypatch, mode) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    config = configure("tracking=wandb")
    with pytest.raises(ConfigError, match=f"^WANDB_MODE is '{mode}', which W&B does not know; ") as caught:
        prepare(config)
    assert ("did you mean 'offline'?" in str(caught.value)) == (mode == "oflfine")
    assert not Path(config.run.dir, config.run.name).exists()
    assert prepare(configure()).checkpoint is None, "other trackers do not read it"


@pytest.mark.slow
def test_a_run_continues_after_the_service_of_wandb_dies(packed: Path, tmp_path: Path) -> None:
    options = f"""model=debug optim=adamw data.dir={packed} data.seq_len=32 data.batch_size=4 data.micro_batch_size=4
    depth.mean=2 optim.lr=1e-4 run.num_steps=600 run.validation.every=10000 run.validation.num_batches=1
    run.checkpoint.every=10000
    tracking=wandb tracking.mode=offline tracking.log_every=1 schedule.num_warmup_steps=5 run.dir={tmp_path}
    run.name=lost parallel.device=cpu""".split()
    process = subprocess.Popen([sys.executable, "-m", "mythos.cli.main", "train", *options], stderr=subprocess.PIPE)
    metrics = tmp_path / "lost" / records.FILE_NAME
    wait_until(lambda: process.poll() is not None or (metrics.exists() and '"step":20,' in metrics.read_text()))
    assert process.poll() is None
    service = ["pgrep", "-f", f"wandb-core .*--pid {process.pid}$"]
    pid = subprocess.run(service, capture_output=True, text=True, check=True)
    os.kill(int(pid.stdout), signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()
    assert error.decode().count("mythos: WandbTracker failed at step") == 1
    steps = [json.loads(line).get("step") for line in metrics.read_text().splitlines()[1:]]
    assert set(range(1, 601)) <= set(steps)
