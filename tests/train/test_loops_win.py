"""``make reasoning``: products of permutations, which a model of one looped layer solves with enough loops alone."""

import shlex
from pathlib import Path

import pytest
import torch

from data_pipelines.cli import main as mythos_data
from mythos.cli.main import main
from mythos.eval.held_out import evaluate_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The problems that the Makefile draws."""
    directory = tmp_path_factory.mktemp("permutations") / "data"
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "mythos-data tasks" in line)
    words = shlex.split(line.replace("\t$(BIN)/mythos-data", ""))
    assert mythos_data([*words[:-1], str(directory)]) == 0
    return directory


@pytest.mark.all
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accuracy_climbs_from_chance_to_the_trained_mean_and_stays(problems: Path, tmp_path: Path, seed: int) -> None:
    options = [f"data.dir={problems}", f"run.dir={tmp_path}", f"run.seed={seed}", "parallel.device=cpu"]
    assert main(["train", "experiment=reasoning", *options]) == 0
    (result,) = evaluate_run(tmp_path / "reasoning", (1, 8, 16), torch.device("cpu")).problems.values()
    assert result.num_problems == 1600
    assert result.solved[1] < 0.4  # guessing solves one in six
    assert result.solved[8] > 0.95  # the mean of training
    assert result.solved[16] > 0.9
