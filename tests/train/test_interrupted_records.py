"""The records of an interrupted run are those of the uninterrupted one."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mythos.callbacks.stragglers import Stragglers
from mythos.checkpoint.manifest import read_manifest
from mythos.checkpoint.store import checkpoints
from mythos.config import records
from mythos.train.build import train
from mythos.train.run_directory import prepare

OPTIONS = """run.checkpoint={every:1,keep_last:9} run.validation.every=4 telemetry.trace_every=3 run.num_steps=8
telemetry.alarms.num_records=2 telemetry.alarms.num_warmup_steps=0 telemetry.alarms.ignored_state=0.9
telemetry.alarms.idle_steps=3 balance=none data.batch_size=1 data.micro_batch_size=1 data.seq_len=8
model.core_ffn.num_experts=32 telemetry.trace_rows=1""".split()


def lines_of(path: Path) -> list[dict[str, object]]:
    """Every record of a file in order, without what measures time."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if not name.startswith(("speed/", "time"))} for line in lines]
    return [line for line in kept if line.keys() - {"step", "tokens"}]


def reports(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("alarm")]


def test_a_run_that_resumes_after_any_step_records_the_same(configure, tmp_path: Path, capsys) -> None:
    config = configure(*OPTIONS, "run.name=whole")
    train(config, prepare(config))
    whole, alarms = tmp_path / "whole", reports(capsys.readouterr().err)
    assert [alarm.split(":")[0] for alarm in alarms] == ["alarm at step 3", "alarm at step 6"]
    assert any(records.alarm("dead_expert") in line for line in lines_of(whole / records.FILE_NAME))
    for step in (2, 4, 7):
        run = tmp_path / f"from-{step}"
        shutil.copytree(whole, run)
        for later in checkpoints(run / "checkpoints")[step:]:
            shutil.rmtree(later)
        resumed = configure(*OPTIONS, f"run.name={run.name}", "resume=auto")
        train(resumed, prepare(resumed))
        for name in (records.FILE_NAME, records.TRACE_FILE_NAME):
            assert lines_of(run / name) == lines_of(whole / name), (step, name)
        due = {2: 0, 4: 1, 7: 2}[step]
        assert reports(capsys.readouterr().err) == alarms[due:], "an alarm is reported once"
        for path in checkpoints(whole / "checkpoints"):
            assert read_manifest(path).metrics == read_manifest(run / "checkpoints" / path.name).metrics


@pytest.mark.parametrize(("host", "is_reported"), [("here", False), ("elsewhere", True)])
def test_a_slow_rank_is_reported_again_only_on_another_host(configure, host: str, is_reported: bool) -> None:
    written: list[dict[str, float]] = []
    metrics = SimpleNamespace(write=lambda trainer, entry, step: written.append(entry))
    trainer = SimpleNamespace(is_global_zero=False)
    before, after = (Stragglers(configure(), metrics, None) for _ in range(2))
    before.hosts, after.hosts = ["here", "here"], ["here", host]
    before._report(trainer, [0.1, 0.9], 1)
    assert [entry[records.alarm("straggler")] for entry in written] == [1.0]
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    after._report(trainer, [0.1, 0.9], 2)
    assert len(written) == 1 + is_reported
