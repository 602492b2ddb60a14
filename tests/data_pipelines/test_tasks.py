import random
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.tasks.arithmetic import Addition, Mano, evaluate
from data_pipelines.tasks.command import DIFFICULTIES, SETTINGS, build_task
from data_pipelines.tasks.k_hop import KHop
from data_pipelines.tasks.p_hop import PHop, hop
from data_pipelines.tasks.problem import Task, draw_problems, is_test
from data_pipelines.tasks.state_tracking import Parity, Permutations
from data_pipelines.tasks.write import TaskOptions, write_task
from mythos.config.base import ConfigError
from mythos.config.data import DataConfig
from mythos.data.examples import answers_in_windows, read_examples
from mythos.data.loader import training_loader
from mythos.data.manifest import read_manifest
from mythos.data.tokenizer import load_tokenizer
from mythos.data.verification import verify
from mythos.data.windows import Windows
from mythos.types import IGNORED

EASY = {
    "p-hop": [1, 4],
    "k-hop": [2, 3],
    "addition": [2, 5],
    "mano": [3, 6],
    "parity": [12, 16],
    "permutations": [3, 5],
}


def task_of(name: str) -> Task:
    settings = {setting: default for setting, (default, _) in SETTINGS[name].items()}
    if name == "p-hop":
        settings["length"] = 40
    return build_task(name, settings, EASY[name])


def options_for(name: str, **changes: object) -> TaskOptions:
    fields = {"difficulties": tuple(EASY[name]), "test_difficulties": tuple(EASY[name])}
    return TaskOptions(**(fields | {"num_train": 60, "num_test": 30, "seed": 0} | changes))


def check_p_hop(task: PHop, problem: tuple) -> str:
    sequence = list(problem[1][1:-1])
    assert all(left != right for left, right in pairwise(sequence))
    index = len(sequence) - 1
    for _ in range(problem[0]):
        index = max(i for i in range(index) if sequence[i] == sequence[index]) + 1
    return sequence[index]


def check_k_hop(task: KHop, problem: tuple) -> str:
    facts = {fact.prompt[:2]: fact.answer[0] for fact in task.facts()}
    entity, *relations, _ = problem[1]
    for relation in relations:
        entity = facts[entity, relation]
    assert len(relations) == problem[0]
    return entity


def check_addition(task: Addition, problem: tuple) -> str:
    numbers = "".join(problem[1]).rstrip("=").split("+")
    assert len(numbers) == problem[0]
    return f"{sum(map(int, numbers)):04d}"


def check_mano(task: Mano, problem: tuple) -> str:
    words = iter(problem[1])

    def value() -> int:
        word = next(words)
        if word not in ("+", "-", "*"):
            return int(word)
        left, right = value(), value()
        return {"+": left + right, "-": left - right, "*": left * right}[word]

    result = value() % 23
    assert next(words) == "="
    assert sum(word in "+-*" for word in problem[1]) == problem[0]
    return str(result)


def check_parity(task: Parity, problem: tuple) -> str:
    return str("".join(problem[1]).count("1") % 2)


def check_permutations(task: Permutations, problem: tuple) -> str:
    matrices = [np.eye(5, dtype=int)[[int(item) for item in word[1:]]] for word in problem[1][:-1]]
    product = np.eye(5, dtype=int)
    for matrix in matrices:
        product = matrix @ product
    return "s" + "".join(map(str, product.argmax(1)))


CHECKS = {
    "p-hop": check_p_hop,
    "k-hop": check_k_hop,
    "addition": check_addition,
    "mano": check_mano,
    "parity": check_parity,
    "permutations": check_permutations,
}


@pytest.mark.parametrize("name", DIFFICULTIES)
def test_answers_equal_those_of_an_independent_solver(name: str) -> None:
    task = task_of(name)
    problems = draw_problems(task, EASY[name], 60, seed=1, test=False)
    assert Counter(problem.difficulty for problem in problems) == dict.fromkeys(EASY[name], 30)
    words = set(task.words)
    for problem in problems:
        assert "".join(problem.answer) == CHECKS[name](task, problem)
        assert {*problem.prompt, *problem.answer} <= words
    assert len({problem.answer for problem in problems}) > 1


@pytest.mark.parametrize("name", DIFFICULTIES)
def test_training_and_test_share_no_problem_under_any_seed(name: str) -> None:
    task = task_of(name)
    training = {p.prompt for seed in (0, 1) for p in draw_problems(task, EASY[name], 150, seed, test=False)}
    test = [p.prompt for p in draw_problems(task, EASY[name], 40, seed=1, test=True)]
    assert len(set(test)) == 40
    assert not training & set(test)
    generator = random.Random(0)
    num_test = sum(is_test(task, task.draw(EASY[name][1], generator).prompt) for _ in range(400))
    # One problem in 8 belongs to the test: 50 of 400, with a standard deviation of 6.6.
    assert abs(num_test - 50) < 27


@pytest.mark.parametrize("name", DIFFICULTIES)
def test_only_answers_are_targets(name: str, tmp_path: Path) -> None:
    task, options = task_of(name), options_for(name)
    manifest = write_task(task, {}, options, tmp_path / name)
    fitted = manifest.splits["validation"].best_fit
    assert fitted is not None
    examples = read_examples(tmp_path / name)
    windows = Windows(tmp_path / name, "validation", fitted.seq_len, keep_partial=True)
    arrays = windows.read(np.arange(len(windows)))
    assert (arrays.targets_BS != IGNORED).sum() == sum(len(example.answer_ids) for example in examples)
    answers = answers_in_windows(examples, arrays.targets_BS)
    assert answers == [example.answer_ids for example in examples]
    assert {example.difficulty for example in examples} == set(EASY[name])
    assert len(examples) == 30
    tokenizer = load_tokenizer(tmp_path / name)
    for example in examples:
        tokens = arrays.tokens_BS[example.window]
        prompt = tokenizer.encode(example.prompt).ids
        assert tokens[example.start + 1 - len(prompt) : example.start + 1].tolist() == prompt
        assert tokens[example.start - len(prompt)] == 0
        assert tokenizer.encode(example.answer).ids == list(example.answer_ids)
    assert verify(tmp_path / name) == []


def test_writing_is_deterministic_and_depends_on_the_seed(tmp_path: Path) -> None:
    def shards(directory: Path, seed: int) -> bytes:
        write_task(task_of("mano"), {}, options_for("mano", seed=seed), directory)
        return (directory / "train-00000.tokens").read_bytes()

    assert shards(tmp_path / "a", 0) == shards(tmp_path / "b", 0) != shards(tmp_path / "c", 1)
    written = (tmp_path / "a" / "manifest.json").stat().st_mtime_ns
    assert shards(tmp_path / "a", 0)
    assert (tmp_path / "a" / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="holds another dataset; give --overwrite"):
        shards(tmp_path / "a", 1)


def test_each_micro_batch_counts_the_targets_of_its_whole_step(tmp_path: Path) -> None:
    write_task(task_of("addition"), {}, options_for("addition"), tmp_path / "sums")
    fitted = read_manifest(tmp_path / "sums").splits["train"].best_fit
    assert fitted is not None
    config = DataConfig(dir=str(tmp_path / "sums"), seq_len=fitted.seq_len, batch_size=8, micro_batch_size=2)
    batches = list(islice(training_loader(config, 0, next_sample=3), 8))
    for step in (batches[:4], batches[4:]):
        num_targets = sum(int((batch.targets_BS != IGNORED).sum()) for batch in step)
        assert {batch.num_targets.item() for batch in step} == {num_targets}
    assert 0 < num_targets < 8 * fitted.seq_len


def test_all_facts_are_in_training_and_the_test_may_be_harder(tmp_path: Path) -> None:
    task = KHop(num_entities=20, num_relations=3, out_degree=3, graph_seed=0)
    options = options_for("k-hop", test_difficulties=(4, 9))
    manifest = write_task(task, {}, options, tmp_path / "graph")
    assert manifest.splits["train"].num_documents == 60 + 60
    assert {example.difficulty for example in read_examples(tmp_path / "graph", "train")} == {1, 2, 3}
    assert {example.difficulty for example in read_examples(tmp_path / "graph")} == {4, 9}


def test_hops_end_where_there_is_no_earlier_occurrence() -> None:
    assert hop(list("ABCAB"), 1) == 2
    assert hop(list("ABCAB"), 2) is None
    assert hop(list("ABC"), 1) is None


def test_prefix_expressions_keep_the_order_of_operands() -> None:
    assert evaluate(["-", "5", "*", "2", "4"], 23) == 20


@pytest.mark.parametrize(
    ("name", "settings", "difficulty", "message"),
    [
        ("p-hop", {"letters": 2, "length": 9}, 1, "--letters is 2; give 3 to 26"),
        ("p-hop", {"letters": 4, "length": 9}, 30, "--hops has 30, but random sequences of --length 9 are too short"),
        ("k-hop", SETTINGS["k-hop"] | {"out_degree": 11}, 2, "--relations 10 and --out-degree 11"),
        ("k-hop", None, 1, "--hops has 1, but single hops are the facts"),
        ("addition", None, 1, "--numbers has 1; a sum has at least 2"),
        ("parity", None, 2, "2000 draws of difficulty 2 gave no new problem for the test"),
        ("permutations", {"items": 9}, 2, "--items is 9; give 2 to 6"),
    ],
)
def test_an_impossible_task_is_refused(
    tmp_path: Path, name: str, settings: dict | None, difficulty: int, message: str
) -> None:
    settings = SETTINGS[name] if settings is None else settings
    values = {key: value[0] if isinstance(value, tuple) else value for key, value in settings.items()}
    options = options_for(name, difficulties=(difficulty,), test_difficulties=(difficulty,))
    with pytest.raises(ConfigError, match=message):
        write_task(build_task(name, values, [difficulty]), values, options, tmp_path / "task")
    assert list(tmp_path.iterdir()) == []


def test_a_window_shorter_than_a_problem_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--seq-len is 8, but the longest problem has 19 tokens"):
        write_task(task_of("parity"), {}, options_for("parity", seq_len=8), tmp_path / "task")
