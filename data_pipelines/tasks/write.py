"""Write a task as a packed dataset: the same shards as text, with its own vocabulary."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from data_pipelines.lock import locked
from data_pipelines.packing.best_fit import BestFitWriter
from data_pipelines.packing.pack import publish
from data_pipelines.tasks.problem import Problem, Task, draw_problems
from mythos.config.base import ConfigError, PositiveInt, PositiveInts, config, encode
from mythos.data.examples import Example, write_examples
from mythos.data.manifest import (
    FILE_NAME,
    SEPARATOR,
    TOKENIZER_FILE,
    VERSION,
    Manifest,
    Split,
    read_manifest,
)
from mythos.files import remove, sha256, write_text


@config
class TaskOptions:
    """Number and difficulties of the problems."""

    difficulties: PositiveInts
    test_difficulties: PositiveInts
    num_train: PositiveInt
    num_test: PositiveInt
    seed: int
    seq_len: PositiveInt | None = None
    """Length of a window in tokens; null takes the length of the longest problem."""


def write_task(
    task: Task, settings: dict[str, Any], options: TaskOptions, directory: Path, overwrite: bool = False
) -> Manifest:
    """Draw the problems and write them in windows that hold whole problems; only answers are targets.

    Does nothing if the same task is there already.

    Args:
        settings: arguments from which the task was constructed.

    Raises:
        ConfigError: there are too few problems, windows are too short, something else is in the folder, or another run
            is at work there.
    """
    recipe = json.dumps([VERSION, task.name, settings, encode(options)], sort_keys=True)
    inputs_sha256 = hashlib.sha256(recipe.encode()).hexdigest()
    if not overwrite and (existing := _existing(directory, inputs_sha256)):
        return existing
    training = draw_problems(task, list(options.difficulties), options.num_train, options.seed, test=False)
    test = draw_problems(task, list(options.test_difficulties), options.num_test, options.seed, test=True)
    problems = {"train": [*task.facts(), *training], "validation": test}
    seq_len = _seq_len([*problems["train"], *test], options.seq_len)
    is_new = not directory.exists()
    with locked(directory):
        # Another run may have written its dataset before this one had the lock.
        if not overwrite and (existing := _existing(directory, inputs_sha256)):
            return existing
        partial = directory / ".packing"
        remove(partial)
        partial.mkdir()
        try:
            tokenizer = word_tokenizer(task.words)
            splits = {name: _write_split(partial, name, tokenizer, part, seq_len) for name, part in problems.items()}
            write_text(partial / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
            manifest = Manifest(
                dtype="uint16",
                vocab_size=tokenizer.get_vocab_size(),
                separator_id=0,
                tokenizer_sha256=sha256(partial / TOKENIZER_FILE),
                inputs_sha256=inputs_sha256,
                splits=splits,
            )
            (directory / FILE_NAME).unlink(missing_ok=True)
            (partial / TOKENIZER_FILE).replace(directory / TOKENIZER_FILE)
            publish(partial, directory, manifest)
        except BaseException:
            remove(directory if is_new else partial)
            raise
    return manifest


def _existing(directory: Path, inputs_sha256: str) -> Manifest | None:
    """Manifest of the same task in the folder; None if there is no dataset."""
    if not (directory / FILE_NAME).exists():
        return None
    if (existing := read_manifest(directory)).inputs_sha256 != inputs_sha256:
        raise ConfigError(f"{directory} holds another dataset; give --overwrite to replace it, or another --to.")
    return existing


def word_tokenizer(words: tuple[str, ...]) -> Tokenizer:
    """Tokenizer of words separated by whitespace, with the separator as token 0."""
    vocabulary = {word: index for index, word in enumerate((SEPARATOR, *words))}
    assert len(vocabulary) == 1 + len(words)
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.add_special_tokens([AddedToken(SEPARATOR, special=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _write_split(partial: Path, name: str, tokenizer: Tokenizer, problems: list[Problem], seq_len: int) -> Split:
    writer = BestFitWriter(partial, name, "uint16", 0, seq_len, keep_placements=True)
    ids = tokenizer.get_vocab()
    examples: list[tuple[Problem, tuple[int, ...]]] = []
    for problem in problems:
        prompt, answer = (tuple(ids[word] for word in words) for words in (problem.prompt, problem.answer))
        is_target = np.zeros(len(prompt) + len(answer) + 1, np.bool_)
        is_target[len(prompt) : len(prompt) + len(answer)] = True
        writer.add([*prompt, *answer], len(" ".join([*problem.prompt, *problem.answer])), is_target)
        examples.append((problem, answer))
    split = writer.finish()
    path = partial / f"{name}-examples.jsonl"
    placed = ((writer.placements[index], *example) for index, example in enumerate(examples))
    write_examples(
        path,
        (
            # The separator predicts the prompt's first word, so the prompt's last word predicts the answer's first.
            Example(
                problem.difficulty,
                " ".join(problem.prompt),
                " ".join(problem.answer),
                placement.window,
                placement.start + len(problem.prompt),
                answer,
            )
            for placement, problem, answer in placed
        ),
    )
    return Split(shards=split.shards, best_fit=split.best_fit, examples_file=path.name, examples_sha256=sha256(path))


def _seq_len(problems: list[Problem], requested: int | None) -> int:
    longest = max(1 + len(problem.prompt) + len(problem.answer) for problem in problems)
    if requested is not None and requested < longest:
        raise ConfigError(
            f"--seq-len is {requested}, but the longest problem has {longest} tokens with its separator; raise it to "
            "that, or make the problems easier."
        )
    return requested or longest
