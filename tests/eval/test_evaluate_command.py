import json
import shutil
from pathlib import Path

import pytest

from mythos.cli.main import main


def test_depth_sweep_prints_tables_and_appears_in_the_report(short_run: Path, capsys) -> None:
    assert main(["evaluate", str(short_run), "depth-sweep", "--num-loops", "1", "2", "5", "--num-windows", "3"]) == 0
    out = capsys.readouterr().out
    assert "at step 6: 96 held-out tokens, 2 loops on average in training" in out
    assert "best T = " in out
    study = json.loads((short_run / "evaluation" / "depth-sweep.json").read_text())
    assert (study["num_loops"], len(study["loss"]), study["num_tokens"]) == ([1, 2, 5], 5, 96)
    assert {point["rule"] for point in study["rules"]} >= {"relative_change", "output_divergence"}
    frozen = out.split("routing frozen to the first loop\n")[1].splitlines()[1:]
    rows = [[float(word) for word in line.split()] for line in frozen[:3]]
    assert [row[0] for row in rows] == study["num_loops"]
    for num_loops, loss, difference, *_, shared in rows:
        loop = int(num_loops) - 1
        assert loss == pytest.approx(study["frozen_loss"][loop], abs=1e-4)
        assert difference == pytest.approx(study["frozen_loss"][loop] - study["loss"][loop], abs=1e-4)
        assert shared == pytest.approx(study["shared_expert_share"][loop], abs=1e-3)
    assert main(["report", str(short_run)]) == 0
    assert "Evaluation: depth sweep" in (short_run / "report" / "index.html").read_text()


def test_runs_are_compared_at_equal_parameters_flops_and_seconds(short_run: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    shutil.copytree(short_run, other, ignore=shutil.ignore_patterns("checkpoints"))
    config = json.loads((other / "config.json").read_text())
    config["run"]["name"] = "other"
    (other / "config.json").write_text(json.dumps(config))
    assert main(["evaluate", "compare", str(short_run), str(other), "--json", str(tmp_path / "result.json")]) == 0
    out = capsys.readouterr().out
    assert "last loss at equal parameters" in out
    assert "loss at equal training FLOPs" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["equal_parameters"] == [["short", "other"]]
    assert result["equal_flops"]["losses"]["short"] == result["equal_flops"]["losses"]["other"]
    assert result["equal_flops"]["losses"]["short"][-1] == result["runs"]["short"]["loss"][-1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["depth-swep"], "'depth-swep' was given after the run; it is one of depth-sweep, reasoning"),
        (["depth-sweep", "--num-loops", "0"], "--num-loops: 0 was given; the core runs at least once"),
        (["depth-sweep", "--num-loops", "5000"], "num_loops: 5000 was given"),
        (["depth-sweep", "--num-windows", "0"], "--num-windows 0 and --noise 0.01 were given"),
        (["--num-loops", "5000"], "num_loops: 5000 was given"),
        (["reasoning"], "hold no problems; train on a task"),
        (["--tasks", "pika_local", "--data-dir", "SETS"], "no task is called 'pika_local'; similar names: piqa_local"),
        (["--tasks", "piqa_local"], "--data-dir: none was given, but the task reads piqa.jsonl"),
        (["--tasks", "core_piqa", "--data-dir", "nowhere"], "--data-dir: nowhere is no folder"),
        (["--tasks", "piqa_local", "--data-dir", "SETS", "--num-loops", "0"], "--num-loops: 0 was given"),
        (["--tasks", "piqa_local", "--data-dir", "SETS", "--limit", "0"], "--limit: 0 was given"),
        (["--tasks", "piqa_local", "--exit-rule", "never"], "exit_rule: 'never' was given; it is one of quantile"),
        (["--tasks", "piqa_local", "--exit-threshold", "2"], "exit_threshold: 2.0 was given without exit_rule"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(
    options: list[str], sentence: str, short_run: Path, sets: Path, capsys
) -> None:
    if any("_local" in option for option in options):
        pytest.importorskip("lm_eval")
    options = [str(sets) if option == "SETS" else option for option in options]
    assert main(["evaluate", str(short_run), *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_run_without_a_checkpoint_is_refused(short_run: Path, tmp_path: Path, capsys) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(short_run, begun, ignore=shutil.ignore_patterns("checkpoints"))
    (begun / "checkpoints" / ".step-00000006.tmp").mkdir(parents=True)
    for options in ([], ["depth-sweep"], ["--tasks", "core_piqa", "--data-dir", str(tmp_path)]):
        (tmp_path / "piqa.jsonl").write_text("{}\n")
        assert main(["evaluate", str(begun), *options]) == 2
        assert "the run has no checkpoint that verifies yet; wait for its first one" in capsys.readouterr().err


def test_compare_needs_two_runs_with_a_validation(short_run: Path, tmp_path: Path, capsys) -> None:
    assert main(["evaluate", "compare", str(short_run)]) == 2
    assert main(["evaluate", "compare", str(short_run), str(short_run)]) == 2
    assert capsys.readouterr().err.count("name at least 2, each of them once") == 2
    young = tmp_path / "young"
    shutil.copytree(short_run, young, ignore=shutil.ignore_patterns("checkpoints"))
    lines = (young / "metrics.jsonl").read_text().splitlines()
    (young / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines if "val/loss" not in line))
    assert main(["evaluate", "compare", str(short_run), str(young)]) == 2
    assert "no validation has been recorded yet" in capsys.readouterr().err
