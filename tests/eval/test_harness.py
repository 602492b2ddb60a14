import json
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mythos.cli.main import main
from mythos.config.base import ConfigError
from mythos.eval import local_data
from mythos.eval.scoring import Scorer

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance

from mythos.eval.harness import TASKS, MythosLM, evaluate, task_manager

TASK_FILES = sorted(TASKS.glob("*_local.yaml"))


def request(kind: str, *arguments: object) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_requests_are_passed_to_the_scorer(scorer: Scorer) -> None:
    model = MythosLM.from_scorer(scorer)
    arguments = [("the king", " speaks"), ("", "night falls"), ("of war ", "and peace")]
    results = model.loglikelihood([request("loglikelihood", *one) for one in arguments])
    whole = scorer.encode("of war and peace")
    start = len(scorer.encode("of war"))
    pairs = [
        ([0, *scorer.encode("the king")], scorer.encode("the king speaks")[len(scorer.encode("the king")) :]),
        ([0], scorer.encode("night falls")),
        ([0, *whole[:start]], whole[start:]),
    ]
    assert results == [(one.log_prob, one.is_greedy) for one in scorer.score(pairs)]
    options = {"until": ["e"], "max_gen_toks": 6}
    texts = model.generate_until([request("generate_until", "the king", options)] * 2)
    assert texts == scorer.generate([[0, *scorer.encode("the king")]], 6, ["e"]) * 2


def test_a_text_longer_than_the_context_is_scored_in_windows(scorer: Scorer) -> None:
    text = "the king speaks to his queen of war and peace while night falls upon old england 17. " * 6
    tokens = scorer.encode(text)
    limit = scorer.max_length
    assert len(tokens) > limit
    starts = range(0, len(tokens), limit)
    windows = [([0, *tokens][start : start + 1], tokens[start : start + limit]) for start in starts]
    windows[-1] = (([0, *tokens])[-limit - 1 : -len(windows[-1][1])], windows[-1][1])
    expected = sum(one.log_prob for one in scorer.score(windows))
    (log_prob,) = MythosLM.from_scorer(scorer).loglikelihood_rolling([request("loglikelihood_rolling", text)])
    assert log_prob == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: path.stem)
def test_every_task_file_loads_and_renders_its_layout(path: Path, sets: Path) -> None:
    name = path.stem
    manager = task_manager([name], sets)
    loaded = manager.load([name])["tasks"]
    assert loaded
    for task in loaded.values():
        documents = list(task.test_docs())
        assert len(documents) == {"mmlu_local": 4, "gsm8k_local": 6, "svamp_local": 6}.get(name, 2)
        task.set_config(key="num_fewshot", value=0)
        task.build_all_requests(limit=1, rank=0, world_size=1)
        assert task.instances
        assert all("{{" not in str(argument) for one in task.instances for argument in one.args)


def first_item(name: str, sets: Path) -> tuple[list[tuple], object]:
    """The arguments of the first item's requests without few-shot examples, and its gold answer."""
    (task,) = task_manager([name], sets).load([name])["tasks"].values()
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(limit=1, rank=0, world_size=1)
    return [one.args for one in task.instances], task.doc_to_target(next(iter(task.test_docs())))


def test_items_are_rendered_as_their_sets_define(sets: Path) -> None:
    question = "Question: who speaks to the king?"
    assert first_item("piqa_local", sets)[0] == [
        (f"{question}\nAnswer:", f" {one}") for one in ("my lord", "the queen")
    ]
    assert first_item("copa_local", sets) == ([(question, " my lord"), (question, " the queen")], 1)
    arguments, _ = first_item("winogrande_local", sets)
    assert arguments[0] == ("the king speaks to the queen so the king", " said war.")
    assert first_item("bigbench_operators_local", sets)[0] == [("the king said 1", " while night falls")]
    assert first_item("arithmetic_two_digit_addition_local", sets)[0] == [("Q: What is 3 plus 1?\n\nA:", " 4")]
    assert first_item("blimp_local", sets) == ([("", " the king speaks."), ("", " the king speak.")], 0)
    ((text, options),), target = first_item("gsm8k_local", sets)
    assert (text, target) == ("Question: 2 kings and 1 queen?\nAnswer:", "2 + 1 The answer is 3")
    assert options["max_gen_toks"] == 256
    arguments, gold = first_item("mmlu_local", sets)
    assert arguments[0][0] == (
        "The following are multiple choice questions (with answers) about old england.\n\n"
        + "".join(f"who is {n}?\nA. w\nB. x\nC. y\nD. z\nAnswer: {'ABC'[n]}\n\n" for n in range(3))
        + "who is 0?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    )
    assert ([one[1] for one in arguments], gold) == ([" A", " B", " C", " D"], 0)
    pages = [row["page"] for row in local_data.load_text("wikitext2_raw_test.txt", str(sets))["test"]]
    assert [page.splitlines()[0] for page in pages] == [" = King = ", " = War = "]


def test_metrics_are_computed_from_the_scores(scorer: Scorer, sets: Path) -> None:
    names = ["piqa_local", "arithmetic_local", "wikitext_local"]
    results = evaluate(scorer, names, task_manager(names, sets), limit=2, num_fewshot=0)
    rows = local_data.read(sets / "piqa.jsonl")
    correct = []
    for row in rows:
        context = f"{row['query'].strip()}\nAnswer:"
        start = len(scorer.encode(context))
        pairs = [([0, *scorer.encode(context)], scorer.encode(f"{context} {one}")[start:]) for one in row["choices"]]
        values = [one.log_prob for one in scorer.score(pairs)]
        correct.append(values.index(max(values)) == row["gold"])
    assert results["piqa_local"].metrics["acc"] == sum(correct) / 2
    share = sum(correct) / 2
    assert results["piqa_local"].errors["acc"] == pytest.approx(math.sqrt(share * (1 - share) / (2 - 1)))
    assert results["piqa_local"].errors.keys() == {"acc", "acc_norm"}
    assert results["arithmetic_local"].errors["acc"] == 0
    assert results["wikitext_local"].errors == {}
    assert results["piqa_local"].num_items == 2
    assert results["piqa_local"].mean_loops == 3
    assert results["arithmetic_local"].metrics.keys() == {"acc"}
    pages = [row["page"] for row in local_data.load_text("wikitext2_raw_test.txt", str(sets))["test"]]
    total = sum(one.log_prob for one in scorer.score([([0], scorer.encode(page)) for page in pages]))
    num_bytes = sum(len(page.encode()) for page in pages)
    assert results["wikitext_local"].metrics["bits_per_byte"] == pytest.approx(-total / num_bytes / math.log(2))


def test_a_perplexity_has_an_error_by_bootstrap_and_one_item_has_none(
    scorer: Scorer, sets: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISABLE_MULTIPROC", raising=False)
    names = ["lambada_openai_local"]
    two = evaluate(scorer, names, task_manager(names, sets), num_fewshot=0)["lambada_openai_local"]
    assert capsys.readouterr().out == ""
    assert "DISABLE_MULTIPROC" not in os.environ
    assert two.errors.keys() == {"acc", "perplexity"}
    pairs = [
        ([0, *scorer.encode(row["context"].rstrip())], scorer.encode(f" {row['continuation']}"))
        for row in local_data.read(sets / "lambada_openai.jsonl")
    ]
    first, second = (math.exp(-one.log_prob) for one in scorer.score(pairs))
    middle = math.sqrt(first * second)
    assert two.metrics["perplexity"] == pytest.approx(middle)
    of_draws = statistics.pstdev([first, middle, middle, second])
    assert two.errors["perplexity"] == pytest.approx(of_draws, rel=0.1)
    one = evaluate(scorer, names, task_manager(names, sets), limit=1, num_fewshot=0)["lambada_openai_local"]
    assert one.errors == {}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gsm8k_local", "3 + 4 = <<3+4=7>>7\nThe answer is 1,007", 1),
        ("gsm8k_local", "The answer is 1007.00 dollars", 1),
        ("gsm8k_local", "1007, no, 1008", 0),
    ],
)
def test_the_last_number_is_the_answer(name: str, text: str, expected: int, sets: Path) -> None:
    (task,) = task_manager([name], sets).load([name])["tasks"].values()
    instance = request("generate_until", "", {})
    instance.doc, instance.doc_id, instance.task_name = {"chain_of_thought": "900 + 107", "answer": "1007"}, 0, name
    instance.resps = [text]
    task._instances = [instance]
    task.apply_filters()
    (answer,) = instance.filtered_resps.values()
    assert task.process_results(instance.doc, [answer])["exact_match"] == expected


def test_unknown_names_and_missing_data_are_refused_in_one_sentence(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task is called 'pika_local'; similar names: piqa_local"):
        task_manager(["pika_local"], sets)
    with pytest.raises(ConfigError, match=r"none was given, but the task reads piqa\.jsonl"):
        task_manager(["piqa_local"], None)
    with pytest.raises(ConfigError, match=r"holds no piqa\.jsonl; name the folder that does"):
        task_manager(["piqa_local"], tmp_path)
    (tmp_path / "piqa.jsonl").write_text('{"query": 1}\n[2]\n')
    with pytest.raises(ConfigError, match="line 2 is no JSON object"):
        task_manager(["piqa_local"], tmp_path)


def test_files_are_found_in_subfolders_as_in_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "commonsense_reasoning").mkdir()
    (tmp_path / "commonsense_reasoning" / "piqa.jsonl").write_text("{}\n")
    assert local_data.find("piqa.jsonl", str(tmp_path)) == [tmp_path / "commonsense_reasoning" / "piqa.jsonl"]


def test_task_files_specify_their_version() -> None:
    for path in TASKS.glob("*"):
        text = path.read_text().replace("!function ", "")
        task = yaml.safe_load(text)
        assert "include" in task or task["metadata"]["version"] == 1.0


def test_the_command_keeps_results_of_several_loop_counts(short_run: Path, sets: Path, capsys) -> None:
    command = ["evaluate", str(short_run), "--tasks", "piqa_local,core_copa", "--data-dir", str(sets)]
    assert main([*command, "--num-loops", "2"]) == 0
    assert main([*command, "--num-loops", "4", "--exit-rule", "stable_argmax", "--exit-threshold", "2"]) == 0
    out = capsys.readouterr().out
    assert "at most 4 loops, exit by stable_argmax" in out
    assert (
        len(re.findall(r"core_copa +2 items   acc \d\.\d{4} ± \d\.\d{4}   centred -?\d\.\d{4} ± \d\.\d{4}", out)) == 2
    )
    assert len(re.findall(r"piqa_local +2 items   acc \d\.\d{4} ± \d\.\d{4}   acc_norm ", out)) == 2
    results = json.loads((short_run / "evaluation" / "tasks.json").read_text())["results"]
    assert [(one["task"], one["num_loops"], one["exit_rule"]) for one in results] == [
        (task, *setting) for setting in ((2, None), (4, "stable_argmax")) for task in ("core_copa", "piqa_local")
    ]
    assert all(1 <= one["mean_loops"] <= one["num_loops"] for one in results)
    assert all(one["num_items"] == 2 for one in results)
    for one in results:
        share = one["metrics"]["acc"]
        assert one["standard_errors"]["acc"] == pytest.approx(math.sqrt(share * (1 - share)))


@pytest.mark.slow
def test_an_unknown_name_is_compared_with_the_tasks_of_the_harness_too() -> None:
    with pytest.raises(ConfigError, match="no task is called 'hellaswagg'; similar names: hellaswag"):
        task_manager(["hellaswagg"], None)


@pytest.mark.slow
def test_the_harness_own_command_line_runs_the_model(short_run: Path, sets: Path, tmp_path: Path) -> None:
    options = f"run={short_run},num_loops=2,exit_rule=relative_change,exit_threshold=0.2"
    command = [sys.executable, "-m", "mythos.eval", "--model", "mythos", "--model_args", options, "--tasks"]
    command += ["piqa_local", "--metadata", json.dumps({"data_dir": str(sets)}), "--output_path", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.rglob("results_*.json")
    assert json.loads(written.read_text())["results"]["piqa_local"]["acc,none"] in (0, 0.5, 1)
