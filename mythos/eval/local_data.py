"""Load evaluation sets from local files as the data sets of the task files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mythos.config.base import ConfigError
from mythos.data.text import encodable_values

if TYPE_CHECKING:
    from datasets import DatasetDict


def load(file: str, data_dir: str | None = None, **_: Any) -> "DatasetDict":
    """Load the items of a JSON-lines file, or of all files that match a pattern, as the split ``test``.

    Args:
        data_dir: folder of the evaluation sets, which is searched recursively, as the DCLM bundle has subfolders.

    Raises:
        ConfigError: no folder was given, or the file is not in it.
    """
    return _as_test_split([row for path in find(file, data_dir) for row in read(path)])


def load_text(file: str, data_dir: str | None = None, **_: Any) -> "DatasetDict":
    """Load the articles of a WikiText file, each beginning with its title, as the field ``page``.

    Raises:
        ConfigError: the file is not UTF-8; see ``load`` as well.
    """
    (path,) = find(file, data_dir)
    articles: list[list[str]] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at offset {error.start}; download the file again.") from None
    for line in lines:
        is_title = line.startswith(" = ") and not line.startswith(" = =")
        if is_title or not articles:
            articles.append([])
        articles[-1].append(line)
    pages = ["\n".join(lines) for lines in articles]
    return _as_test_split([{"page": page} for page in pages if page.strip()])


def load_mmlu(file: str, examples: str, data_dir: str | None = None, **_: Any) -> "DatasetDict":
    """Load MMLU in the format of Hendrycks et al. (2020): five solved questions of the subject, then the question.

    Both files have the fields of ``cais/mmlu``: question, subject, choices, answer (an index).
    """
    (path,), (examples_path,) = find(file, data_dir), find(examples, data_dir)
    shots: dict[str, list[str]] = {}
    for row in read(examples_path):
        shots.setdefault(row["subject"], []).append(f"{_mmlu_question(row)} {'ABCD'[row['answer']]}\n\n")
    rows = [
        {
            "text": _mmlu_title(row["subject"]) + "".join(shots.get(row["subject"], [])[:5]) + _mmlu_question(row),
            "subject": row["subject"],
            "answer": row["answer"],
        }
        for row in read(path)
    ]
    return _as_test_split(rows)


def _as_test_split(rows: list[dict[str, Any]]) -> "DatasetDict":
    from datasets import Dataset, DatasetDict  # comes with lm-eval; CORE reads its files without either

    return DatasetDict(test=Dataset.from_list(rows))


def _mmlu_title(subject: str) -> str:
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"


def _mmlu_question(row: dict[str, Any]) -> str:
    options = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", row["choices"], strict=True))
    return f"{row['question'].strip()}\n{options}Answer:"


def find(file: str, data_dir: str | None) -> list[Path]:
    """Find the files that match a name or pattern, in a folder or else in its subfolders.

    Raises:
        ConfigError: see ``load``.
    """
    if data_dir is None:
        raise ConfigError(f"--data-dir: none was given, but the task reads {file}; name the folder that holds it.")
    folder = Path(data_dir)
    if not folder.is_dir():
        raise ConfigError(f"--data-dir: {folder} is no folder; name the one that holds {file}.")
    paths = sorted(folder.glob(file)) or sorted(folder.rglob(Path(file).name))
    if not paths:
        raise ConfigError(f"--data-dir: {folder} holds no {file}; name the folder that does.")
    return paths


def read(path: Path) -> list[dict[str, Any]]:
    """Read the items of a JSON-lines file.

    Raises:
        ConfigError: a line is no JSON object.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                row = encodable_values(json.loads(line))
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise ConfigError(f"{path}: line {number} is no JSON object; download the file again.")
            rows.append(row)
    return rows
