import json
from pathlib import Path

from helpers import recorded

from mythos.config import records
from mythos.train.build import train
from mythos.train.run_directory import prepare
from mythos.train.trackers.jsonl import JsonlTracker


def test_resume_drops_metrics_after_the_checkpoint_and_incomplete_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JsonlTracker(path, first_step=0)
    for step in (1, 2, 3):
        logger.log_metrics({"x": float(step)}, step)
    logger.finalize("failed")
    with path.open("a") as file:
        file.write('{"step": 4, "x"')
    resumed = JsonlTracker(path, first_step=2)
    resumed.log_metrics({"x": 30.0}, 3)
    resumed.finalize("success")
    assert json.loads(path.read_text().splitlines()[0]) == {"schema": records.SCHEMA}
    assert recorded(tmp_path, "x") == {1: 1.0, 2: 2.0, 3: 30.0}


def test_wandb_works_offline_and_a_resumed_run_keeps_its_id(configure) -> None:
    options = ("tracking=wandb", "tracking.mode=offline", "tracking.log_every=1", "telemetry.trace_every=2")
    config = configure(*options, "run.num_steps=4")
    train(config, prepare(config))
    run = Path(config.run.dir) / "test"
    first = (run / "wandb-id").read_text()
    longer = configure(*options, "run.num_steps=6", "resume=auto")
    train(longer, prepare(longer))
    assert (run / "wandb-id").read_text() == first
    written = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert [path.stem for path in written] == [f"run-{first}"] * 2
    assert b"loop/state_norm/t00" in written[0].read_bytes()
