"""A checkpoint records the package of each loop part, and cannot be used without it."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from foreign_part import TIDE, write_package

from mythos.checkpoint.manifest import parse_manifest, read_manifest
from mythos.cli.main import main
from mythos.config.load import load
from mythos.eval.restore import restore
from mythos.train.build import train
from mythos.train.run_directory import prepare

SMALL = """data.seq_len=32 data.batch_size=2 data.micro_batch_size=2 run.num_steps=2 run.name=test parallel.device=cpu
run.validation.num_batches=2 schedule.num_warmup_steps=0""".split()
STEP_2 = "step-00000002"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder of the installed package, which is on the path."""
    root = write_package(tmp_path / "site")
    monkeypatch.syspath_prepend(root)
    yield root
    for name in [name for name in sys.modules if name.startswith("tide_parts")]:
        del sys.modules[name]


@pytest.fixture
def options(packed: Path, tmp_path: Path) -> list[str]:
    """Overrides of a run of two steps with a film and the foreign part."""
    parts = f"model.loop.parts=[{{kind: film}}, {TIDE}]"
    return [
        "model=debug",
        *SMALL,
        f"data.dir={packed}",
        f"run.dir={tmp_path}",
        "depth=fixed",
        "depth.num_loops=2",
        parts,
    ]


@pytest.fixture
def run(options: list[str], site: Path, tmp_path: Path) -> Path:
    config = load(options)
    train(config, prepare(config))
    return tmp_path / "test"


def test_the_manifest_records_package_and_version(run: Path) -> None:
    path = run / "checkpoints" / STEP_2 / "manifest.json"
    assert read_manifest(path.parent).packages == {"tide": "tide_parts 1.2"}
    raw = json.loads(path.read_text())
    del raw["packages"], raw["sha256"]
    assert parse_manifest(json.dumps(raw).encode(), "an earlier manifest").packages == {}


def test_without_the_package_every_command_refuses_in_one_sentence(
    run: Path, options: list[str], site: Path, tmp_path: Path, capsys
) -> None:
    shutil.rmtree(site)
    importlib.invalidate_caches()
    sentence = (
        f"{run}/checkpoints/{STEP_2}: the model has the loop part 'tide' of tide_parts 1.2, but no installed package "
        "provides it; install that package.\n"
    )
    for command in (
        ["train", *options, "resume=auto"],
        ["train", *options, f"resume={run}/checkpoints/{STEP_2}", "run.name=branch"],
        ["evaluate", str(run)],
        ["sample", str(run)],
        ["export", str(run), "--to", str(tmp_path / "out")],
    ):
        assert main(command) == 2
        prefix = "resume: " if command[0] == "train" else ""
        assert capsys.readouterr().err == f"mythos: {prefix}{sentence}"


def test_another_version_is_one_line(run: Path, options: list[str], site: Path, tmp_path: Path, capsys) -> None:
    shutil.rmtree(site)
    write_package(site, "2.0")
    importlib.invalidate_caches()
    capsys.readouterr()
    line = "the loop part 'tide' was trained with tide_parts 1.2, but tide_parts 2.0 is installed."
    restore(run, torch.device("cpu"))
    assert capsys.readouterr().err == f"{run}/checkpoints/{STEP_2}: {line}\n"
    prepare(load([*options, "resume=auto"]))
    assert capsys.readouterr().err == f"resume: {run}/checkpoints/{STEP_2}: {line}\n"
