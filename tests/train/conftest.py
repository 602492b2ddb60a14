from pathlib import Path

import pytest
from helpers import run_config

from mythos.config.run import RunConfig

SMALL = (
    "data.seq_len=32",
    "data.batch_size=4",
    "data.micro_batch_size=2",
    "run.num_steps=8",
    "run.validation={every: 4, num_batches: 2, num_loops: [1, 2, 4]}",
    "run.checkpoint={every: 4, keep_last: 3}",
    "schedule.num_warmup_steps=2",
    "tracking.log_every=1",
    "telemetry.trace_every=3",
    "parallel.device=cpu",
    "run.name=test",
)


@pytest.fixture
def configure(packed: Path, tmp_path: Path):
    """Builds a run of eight small steps in a fresh directory, with overrides on top."""

    def build(*overrides: str, depth: tuple[str, ...] = ("depth.mean=2", "depth.max_loops=4")) -> RunConfig:
        return run_config(*SMALL, f"data.dir={packed}", f"run.dir={tmp_path}", *depth, *overrides)

    return build


@pytest.fixture
def offline_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
