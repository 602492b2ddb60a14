import math
import random
from pathlib import Path

import pytest
import torch

from mythos.config.base import ConfigError
from mythos.eval import core_tasks
from mythos.eval.core_tasks import TaskResult, core, core_error, evaluate_task, is_core, pairs_of, select_tasks
from mythos.eval.local_data import read
from mythos.eval.scoring import Scorer

TASKS = core_tasks.core_tasks()


def losses(scorer: Scorer, tokens: list[int]) -> tuple[list[float], list[int]]:
    """Loss and prediction of every token but the first."""
    cache = scorer.model.new_cache(scorer.num_loops, len(tokens))
    log_prob_SV = scorer.model.decode(torch.tensor([tokens]), cache)[0].double().log_softmax(-1)
    nll = [-float(log_prob_SV[index, token]) for index, token in enumerate(tokens[1:])]
    return nll, log_prob_SV[:-1].argmax(-1).tolist()


def is_correct(scorer: Scorer, task: core_tasks.CoreTask, texts: list[str], gold: int | None) -> bool:
    """The metric by its definition, one text at a time."""
    token_lists = [[0, *scorer.encode(text)] for text in texts]
    if task.kind == "exact":
        without, whole = token_lists
        assert whole[: len(without)] == without
        return losses(scorer, whole)[1][len(without) - 1 :] == whole[len(without) :]
    means = []
    for tokens in token_lists:
        others = [other for other in token_lists if other is not tokens]
        if task.kind == "schema":
            backwards = [list(reversed(one)) for one in (tokens, *others)]
            start = len(tokens) - shared(backwards)
        else:
            start = shared([tokens, *others])
        scored = losses(scorer, tokens)[0][start - 1 :]
        means.append(sum(scored) / len(scored))
    return means.index(min(means)) == gold


def shared(token_lists: list[list[int]]) -> int:
    count = 0
    for tokens in zip(*token_lists, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


@pytest.mark.parametrize("name", ["piqa", "copa", "winogrande", "bigbench_operators", "boolq"])
def test_accuracy_equals_the_definition_item_by_item(name: str, scorer: Scorer, sets: Path) -> None:
    task = TASKS[name]
    rows = read(sets / task.file)
    random.Random(1337).shuffle(rows)
    correct = []
    for row, other in zip(rows, rows[::-1], strict=True):
        delimiter = task.delimiter
        shot, texts = "", []
        match task.kind:
            case "multiple_choice":
                if task.num_fewshot:
                    shot = f"{other['query']}{delimiter}{other['choices'][other['gold']]}\n\n"
                texts = [f"{shot}{row['query']}{delimiter}{choice}" for choice in row["choices"]]
            case "schema":
                texts = [f"{option}{delimiter}{row['continuation']}" for option in row["context_options"]]
            case "exact":
                shot = f"{other['context'].strip()}{delimiter}{other['continuation']}\n\n"
                question = f"{shot}{row['context'].strip()}"
                texts = [question, f"{question}{delimiter}{row['continuation']}"]
        correct.append(is_correct(scorer, task, texts, row.get("gold")))
    result = evaluate_task(scorer, task, sets)
    assert result.accuracy == sum(correct) / 2
    assert result.centred == pytest.approx((result.accuracy - task.baseline) / (1 - task.baseline))
    assert (result.num_items, result.mean_loops) == (2, 3)
    assert evaluate_task(scorer, task, sets, limit=1).accuracy in (0.0, 1.0)


def test_an_exact_continuation_that_the_model_generates_is_correct(scorer: Scorer, tmp_path: Path) -> None:
    task = TASKS["lambada_openai"]
    assert task.num_fewshot == 0
    (text,) = scorer.generate([[0, *scorer.encode("the king")]], 4, [])
    (tmp_path / task.file).write_text(
        f'{{"context": "the king", "continuation": {text.lstrip()!r}}}\n'.replace("'", '"')
    )
    expected = scorer.encode(f"the king {text.lstrip()}") == scorer.encode("the king") + scorer.encode(text)
    assert evaluate_task(scorer, task, tmp_path).accuracy == float(expected)


def test_every_task_renders_an_item_of_its_layout(scorer: Scorer, sets: Path) -> None:
    assert len(TASKS) == 22
    for task in TASKS.values():
        rows = read(sets / task.file)
        pairs = pairs_of(scorer, task, rows[0], rows[1:])
        assert len(pairs) == (1 if task.kind == "exact" else 2)
        assert all(context and answer for context, answer in pairs)
        assert ("Answer: " in scorer.tokenizer.decode([*pairs[0][0], *pairs[0][1]])) == (task.delimiter == "\nAnswer: ")


def test_an_answer_that_is_a_prefix_of_another_one_keeps_a_token(scorer: Scorer) -> None:
    row = {"query": "the king", "choices": ["night", "night falls"], "gold": 0}
    pairs = pairs_of(scorer, TASKS["copa"], row, [])
    assert [len(answer) >= 1 for _, answer in pairs] == [True, True]


def test_core_is_the_mean_of_all_22_centred_accuracies() -> None:
    results = {name: TaskResult(1.0, 1.0, 5, 3.0) for name in TASKS}
    results["boolq"] = TaskResult(0.62, TASKS["boolq"].centred(0.62), 5, 3.0)
    assert core(results) == pytest.approx(21 / 22)
    del results["boolq"]
    assert core(results) is None


def test_standard_errors_are_those_of_means() -> None:
    half = TaskResult(0.5, TASKS["boolq"].centred(0.5), 101, 3.0)
    assert half.error == pytest.approx(0.05)
    assert TaskResult(1.0, 1.0, 1, 3.0).error is None
    results = {name: TaskResult(1.0, 1.0, 5, 3.0) for name in TASKS}
    assert core_error(results) == 0
    results["boolq"] = half
    assert core_error(results) == pytest.approx(0.05 / (1 - 0.62) / 22)
    results["piqa"] = half
    assert core_error(results) == pytest.approx(math.hypot(0.05 / (1 - 0.62), 0.05 / (1 - 0.5)) / 22)
    results["piqa"] = TaskResult(1.0, 1.0, 1, 3.0)
    assert core_error(results) is None


def test_core_tasks_are_selected_only_with_their_prefix(sets: Path, tmp_path: Path) -> None:
    assert [is_core(name) for name in ("core", "core_piqa", "piqa", "piqa_local", "core_x")] == [True, True] + [
        False
    ] * 3
    assert select_tasks("core", sets).keys() == TASKS.keys()
    with pytest.raises(ConfigError, match="holds no file of CORE"):
        select_tasks("core", tmp_path)
    with pytest.raises(ConfigError, match="none was given"):
        select_tasks("core", None)
