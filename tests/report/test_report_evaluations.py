import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.config.records import SCHEMA
from mythos.report.evaluations import add_task_results, read_studies, write_study
from mythos.report.figures import evaluation
from mythos.report.read import read_run

MakeRun = Callable[..., Path]


def result(task: str, accuracy: float, **setting: object) -> dict:
    return {"task": task, "num_loops": 4, "limit": None, "metrics": {"acc": accuracy}} | setting


def test_studies_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_studies(tmp_path) == {}
    path = write_study(tmp_path, "depth-sweep", {"loss": [2.0, 1.5]})
    assert path == tmp_path / "evaluation" / "depth-sweep.json"
    assert read_studies(tmp_path) == {"depth-sweep": {"schema": SCHEMA, "loss": [2.0, 1.5]}}


def test_a_newer_result_replaces_that_of_the_same_setting_only(tmp_path: Path) -> None:
    add_task_results(tmp_path, [result("a", 0.1), result("b", 0.2)])
    add_task_results(tmp_path, [result("a", 0.3), result("a", 0.4, num_loops=8), result("b", 0.5, limit=7)])
    kept = [(one["task"], one["num_loops"], one["limit"], one["metrics"]["acc"]) for one in _results(tmp_path)]
    assert kept == [("b", 4, None, 0.2), ("a", 4, None, 0.3), ("a", 8, None, 0.4), ("b", 4, 7, 0.5)]


def _results(run: Path) -> list[dict]:
    return read_studies(run)["tasks"]["results"]


@pytest.mark.parametrize(
    ("text", "sentence"), [("{", "damaged; delete it"), ('{"schema": 9}', "schema 9, but this version")]
)
def test_an_unreadable_file_is_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "tasks.json").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_studies(tmp_path)


def test_figures_show_the_results(make_run: MakeRun) -> None:
    run = read_run(make_run(is_evaluated=True))
    sweep = run.evaluations["depth-sweep"]
    loss, fitted, frozen = evaluation.swept_loss(run).data
    assert frozen.y.tolist() == pytest.approx(sweep["frozen_loss"])
    assert loss.y.tolist() == pytest.approx(sweep["loss"])
    assert "2.400 + 1.000 exp" in fitted.name
    equal, *rules = evaluation.exit_rules(run).data
    assert equal.y.tolist() == pytest.approx(sweep["loss"])
    assert [trace.name for trace in rules] == ["relative change", "stable argmax"]
    assert list(rules[0].x) == [2.5, 3.5, 4.5]
    solved = json.loads(evaluation.solved_by_difficulty(run).to_json())["data"][0]
    assert solved["y"] == ["T = 1", "T = 4"]
    (every,) = evaluation.solved(run).data
    assert (every.x.tolist(), every.y.tolist()) == ([1, 4], [pytest.approx((1 + 1 / 2 + 1 / 4) / 3), 1])
    tasks = {trace.name: (list(trace.x), list(trace.y)) for trace in evaluation.task_accuracies(run).data}
    assert tasks == {"piqa_local": ([4, 8], [0.25, 0.5]), "core_copa": ([4, 8], [0.25, 0.5])}


def test_a_dense_core_has_no_line_of_frozen_routing(make_run: MakeRun) -> None:
    run = read_run(make_run(is_evaluated=True))
    run.evaluations["depth-sweep"]["frozen_loss"] = None
    assert len(evaluation.swept_loss(run).data) == 2


def test_a_study_without_the_share_of_all_problems_has_no_such_figure(make_run: MakeRun) -> None:
    run = read_run(make_run(is_evaluated=True))
    del run.evaluations["reasoning"]["solved"]
    assert evaluation.solved(run) is None
    assert evaluation.solved_by_difficulty(run) is not None


def test_a_run_that_was_not_evaluated_has_no_such_figures(make_run: MakeRun) -> None:
    run = read_run(make_run())
    every = (evaluation.swept_loss, evaluation.swept_accuracy, evaluation.convergence, evaluation.angles)
    every += (evaluation.exit_rules, evaluation.exit_accuracies, evaluation.exit_sensitivity, evaluation.solved)
    assert all(draw(run) is None for draw in (*every, evaluation.solved_by_difficulty, evaluation.task_accuracies))
