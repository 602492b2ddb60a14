"""Fixtures: a trained run, its model, and its export, all through the public API."""

from pathlib import Path

import pytest
import torch

import mythos
from mythos.export.folder import export

SHORT = (
    "model=debug",
    "model.max_seq_len=96",
    "data.seq_len=32",
    "data.batch_size=8",
    "data.micro_batch_size=4",
    "depth.mean=3",
    "run.num_steps=4",
    "run.validation={every: 4, num_batches: 2, num_loops: [1, 3]}",
    "run.checkpoint.every=4",
    "schedule.num_warmup_steps=1",
    "parallel.device=cpu",
)


@pytest.fixture(scope="session")
def trained(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> mythos.TrainingResult:
    """A run of four steps."""
    parent = tmp_path_factory.mktemp("api")
    return mythos.train(mythos.load_config(*SHORT, f"data.dir={packed}", f"run.dir={parent}", "run.name=short"))


@pytest.fixture(scope="session")
def loaded(trained: mythos.TrainingResult) -> mythos.Loaded:
    """The model of that run."""
    return mythos.load(trained.path, device="cpu")


@pytest.fixture(scope="session")
def exported(trained: mythos.TrainingResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of that run in bfloat16."""
    folder = tmp_path_factory.mktemp("export") / "model"
    export(trained.path, folder, None, torch.bfloat16)
    return folder
