"""A run is compared with the GPU before anything is built, and a large model with toy settings is named a recipe."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import run_config

from mythos.cli.main import main
from mythos.config.base import ConfigError
from mythos.config.load import load
from mythos.parallel import device
from mythos.train.remat import resolve_remat
from mythos.train.run_directory import refuse
from mythos.train.start import TrainingResult, start

LARGE = "model=140m model.vocab_size=512".split()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A GPU of 22 GiB, of which only the properties can be read."""
    properties = SimpleNamespace(name="NVIDIA L4", total_memory=22 * 2**30, major=8, minor=9)
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    return properties


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("remat", ["none", "auto"])
def test_a_run_too_large_for_the_gpu_is_refused_with_what_fits(remat: str) -> None:
    words = ["experiment=1b-20b-tokens", f"parallel.remat={remat}", "data.micro_batch_size=32"]
    with pytest.raises(ConfigError, match=r"more than the 22.0 GiB of NVIDIA L4; set data.micro_batch_size=1\b"):
        resolve_remat(load(words))


@pytest.mark.usefixtures("gpu")
def test_memory_gb_overrides_the_memory_of_the_gpu() -> None:
    config = load(["experiment=1b-20b-tokens", "parallel.remat=none", "parallel.memory_gb=80"])
    assert resolve_remat(config) is config


@pytest.mark.usefixtures("gpu")
def test_a_run_that_fits_is_unchanged() -> None:
    config = run_config()
    assert resolve_remat(config) is config


def test_a_recipe_on_too_few_tokens_is_refused_before_its_directory_exists(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment=140m-3b-tokens", "model.vocab_size=512", "data.seq_len=64", f"data.dir={packed}"]
    assert main(["train", *words, f"run.dir={tmp_path / 'runs'}"]) == 2
    error = capsys.readouterr().err
    assert "but 5,600 steps (run.num_steps) read 91,750,400 from it" in error
    assert "epochs where data.max_epochs is 1; pack more text, " in error
    assert not (tmp_path / "runs").exists()
    refuse(load([*words, "data.max_epochs=null", f"run.dir={tmp_path / 'runs'}"]))


def test_one_line_names_the_recipe_at_the_start_of_a_large_toy(
    configure, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mythos.train.start._train", lambda config, *_: TrainingResult(Path(config.run.dir), {}))
    assert start(configure(*LARGE)) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "experiment=" in line]
    assert warnings == [
        "warning: a model of 116M parameters trains with windows of 32 tokens (data.seq_len), 128 tokens a step "
        "(data.batch_size); experiment=140m-3b-tokens has settings for such a model."
    ]
    assert start(configure("run.name=small")) == 0
    assert capsys.readouterr().err == ""
