import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fill, run_config
from scipy import stats

from data_pipelines.cli import main as mythos_data
from mythos.cli.main import main
from mythos.config.halting import PonderHalting
from mythos.data.examples import read_examples
from mythos.data.loader import batches
from mythos.eval.reasoning import Reasoning, exit_point, study
from mythos.model.mythos import Mythos

SMALL = """model=debug-dense data.seq_len=14 data.batch_size=8 data.micro_batch_size=4 depth=fixed depth.num_loops=3
run.num_steps=4 run.validation.every=4 run.validation.num_batches=1 run.checkpoint.every=4
schedule.num_warmup_steps=1 parallel.device=cpu halting=ponder""".split()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task") / "parity"
    options = ["--bits", "6", "9", "--num-train", "40", "--num-test", "14", "--seq-len", "14", "--to", str(directory)]
    assert mythos_data(["tasks", "parity", *options]) == 0
    return directory


def test_problems_are_solved_where_decoding_solves_them(task: Path) -> None:
    config = run_config(*SMALL, f"data.dir={task}", "model.vocab_size=64")
    model = Mythos(config.model, PonderHalting())
    fill(model)
    result = study(model.eval(), task, config.data, num_loops=3)
    examples = read_examples(task)
    assert result.is_solved_TE.shape == result.exit_prob_TE.shape == (3, len(examples))
    windows = torch.cat([batch.tokens_BS for batch in batches(task, "validation", 14, 4, False)])
    documents = torch.cat([batch.document_ids_BS for batch in batches(task, "validation", 14, 4, True)])
    for num_loops in (1, 3):
        for index, example in enumerate(examples):
            row, end = windows[example.window], example.start + 1
            begin = int((documents[example.window] == documents[example.window, example.start]).int().argmax())
            logits = model.decode(row[None, begin:end], model.new_cache(num_loops, 14))
            prediction = logits[0, -1].argmax().item()
            assert (prediction == example.answer_ids[0]) == bool(result.is_solved_TE[num_loops - 1, index])
    np.testing.assert_allclose(result.exit_prob_TE.sum(0), 1, rtol=1e-5)


def test_an_exit_point_has_accuracy_loops_and_correlation_with_difficulty() -> None:
    difficulty = np.array([1, 1, 2, 3, 3, 3])
    needed = np.array([1, 2, 2, 4, 3, 4])
    loops = np.arange(1, 5)[:, None]
    result = Reasoning(difficulty, loops >= needed, (loops == needed).astype(np.float32))
    point = exit_point(result, 0.5)
    assert point.accuracy == 1
    assert point.mean_loops == pytest.approx(needed.mean())
    assert point.mean_loops_by_difficulty == {1: 1.5, 2: 2.0, 3: pytest.approx(11 / 3)}
    assert point.rank_correlation == pytest.approx(stats.spearmanr(needed, difficulty).statistic)
    assert result.solved(2) == 0.5
    assert result.accuracy(2) == {1: 1.0, 2: 1.0, 3: 0.0}
    same = Reasoning(difficulty, loops >= needed, np.full((4, 6), 0.25, dtype=np.float32))
    assert np.isnan(exit_point(same, 0.5).rank_correlation)


def test_evaluate_prints_accuracy_by_difficulty_and_num_loops(task: Path, tmp_path: Path, capsys) -> None:
    options = [f"data.dir={task}", f"run.dir={tmp_path}", "run.name=r", "model.vocab_size=64"]
    assert main(["train", *SMALL, *options]) == 0
    capsys.readouterr()
    assert (
        main(["evaluate", str(tmp_path / "r"), "--num-loops", "1", "4", "--json", str(tmp_path / "result.json")]) == 0
    )
    out = capsys.readouterr().out
    assert "share of 14 problems solved, of all and by difficulty" in out
    assert "exit at a quantile of the exit distribution" in out
    assert (tmp_path / "result.json").read_text().count('"rank_correlation"') == 11
    assert main(["evaluate", str(tmp_path / "r"), "reasoning", "--num-loops", "1", "4"]) == 0
    study = json.loads((tmp_path / "r" / "evaluation" / "reasoning.json").read_text())
    printed = json.loads((tmp_path / "result.json").read_text())
    assert study["accuracy"] == {str(task): printed[str(task)]["accuracy"]}
    assert list(study["accuracy"][str(task)]) == ["1", "4"]
    for count, shares in study["accuracy"][str(task)].items():  # 7 problems of each of the two difficulties
        assert study["solved"][str(task)][count] == pytest.approx(sum(shares.values()) / 2)
    assert study["mean_depth"] == 3
