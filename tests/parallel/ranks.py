"""Starts real ranks from a test."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mythos.checkpoint.fragments import FragmentReader
from mythos.checkpoint.store import checkpoints

SMALL = """model=debug optim=adamw data.seq_len=32 data.batch_size=8 data.micro_batch_size=2 depth.mean=3
run.num_steps=4 run.validation.num_batches=4 run.validation.every=100 run.checkpoint.every=100
schedule.num_warmup_steps=0 schedule.cooldown_fraction=0 parallel.device=cpu tracking.log_every=1
cluster.timeout_seconds=600""".split()
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"}


class Result(NamedTuple):
    """Losses, expert counts and final weights of one case."""

    losses: list[float]
    counts: list[torch.Tensor]
    """Routed tokens of each (loop, layer, expert), by step."""
    weights: dict[str, torch.Tensor]
    """Unsharded parameters and buffers after the last step."""


def run_cases(folder: Path, num_ranks: int, packed: Path, cases: list[list[str]]) -> list[Result]:
    """Train each case, overrides of ``SMALL`` and options of the worker, in ``num_ranks`` processes that run all."""
    folder.mkdir(parents=True)
    common = [*SMALL, f"data.dir={packed}", f"run.dir={folder}", f"cluster.num_devices={num_ranks}"]
    runs = [[*common, f"run.name=case-{index}", *case] for index, case in enumerate(cases)]
    (folder / "cases.json").write_text(json.dumps(runs))
    command = [sys.executable, str(Path(__file__).parent / "worker.py"), str(folder)]
    finished = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    (folder / "output.txt").write_text(finished.stdout + finished.stderr)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return [read_result(folder, index) for index in range(len(cases))]


def read_result(folder: Path, index: int) -> Result:
    collected: dict[str, Any] = torch.load(folder / f"{index}.pt")
    reader = FragmentReader(checkpoints(folder / f"case-{index}" / "checkpoints")[-1])
    return Result(**collected, weights={name: reader.tensor(name) for name in reader.names})
