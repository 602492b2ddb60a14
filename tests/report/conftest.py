"""A run directory as training would leave it, computed by a pure function."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mythos.config import records
from mythos.config.base import encode
from mythos.config.load import load

TOKENS_PER_STEP = 4096
SECONDS_PER_STEP = 0.25


def held_out_loss(step: int, depth: int) -> float:
    """Loss in nats per token: falls with the step, and with depth once the loops have learnt."""
    learned = 1 - math.exp(-step / 300)
    return 2.31 + 5.3 / (1 + step / 9) ** 0.72 + learned * (0.055 + 0.26 * math.exp(-0.42 * depth))


def fake_records(num_steps: int, num_loops: int, log_every: int, depths: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``."""
    rng = np.random.default_rng(0)
    look_every = max(num_steps // 20, 1)
    yield {"schema": records.SCHEMA}
    for step in range(log_every, num_steps + 1, log_every):
        drawn = int(np.clip(rng.poisson(num_loops * 0.67), 1, num_loops))
        head = {"step": step, "time": 1.79e9 + SECONDS_PER_STEP * step, "tokens": TOKENS_PER_STEP * step}
        noise = rng.normal(0, 0.045) + 0.4 * math.exp(-step / 40) * rng.random()
        yield head | {records.TRAIN_LOSS: held_out_loss(step, drawn) + noise - 0.03, records.NUM_LOOPS: drawn}
        if step % (5 * log_every) == 0:
            growth = 0.25 + 0.5 * math.exp(-step / 500)
            norms = 1 + growth * np.log1p(np.arange(drawn)) + rng.normal(0, 0.01, drawn)
            yield head | {records.state_norm(loop): float(norm) for loop, norm in enumerate(norms)}
        if step % look_every == 0:
            yield head | {records.validation_loss(depth): held_out_loss(step, depth) for depth in depths}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a run directory and returns its path."""

    def make(
        *overrides: str,
        num_steps: int = 2000,
        num_loops: int = 12,
        log_every: int = 10,
        depths: tuple[int, ...] = (1, 2, 4, 8, 12),
        lines: list[dict[str, Any]] | None = None,
    ) -> Path:
        config = load(["run.name=quickstart-moe", "depth.mean=8", f"run.num_steps={num_steps}", *overrides])
        directory = tmp_path / "run"
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(encode(config)))
        if lines is None:
            lines = list(fake_records(num_steps, num_loops, log_every, depths))
        (directory / records.FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return directory

    return make
