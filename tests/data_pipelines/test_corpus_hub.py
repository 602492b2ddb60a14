import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data_pipelines.corpus.config import CorpusConfig, HubSource
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.sources import plan, read_task
from mythos.config.base import ConfigError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write_parquet(path: Path, first: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"content": f"text {n}", "hexsha": f"h{n}", "licenses": ["MIT", "Apache-2.0"], "url": f"u{n}"}
        for n in range(first, first + number)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def corpus_of(path: Path, **arguments: object) -> CorpusConfig:
    return CorpusConfig(sources={"hub": HubSource(path=str(path), licence="ODC-By-1.0", **arguments)})


def test_files_in_the_hubs_layout_become_one_task_each(tmp_path: Path) -> None:
    for file in range(3):
        write_parquet(tmp_path / "set" / "data" / "python" / f"train-{file:05d}-of-00003.parquet", 10 * file, 10)
    columns = {"text_column": "content", "id_column": "hexsha", "metadata_columns": ("url",)}
    corpus = corpus_of(tmp_path / "set", data_dir="data/python", licence_column="licenses", **columns)
    tasks = plan(corpus)
    assert [task.hub_file for task in tasks] == [0, 1, 2]
    documents = [document for task in tasks for document in read_task(corpus, task, Ledger())]
    assert [document.text for document in documents] == [f"text {n}" for n in range(30)]
    assert documents[7].id == "h7"
    assert documents[7].metadata == {"url": "u7", "source": "hub", "licence": "MIT OR Apache-2.0"}


def test_num_files_takes_the_first_files(tmp_path: Path) -> None:
    for file in range(3):
        path = tmp_path / "set" / "data" / f"train-{file:05d}-of-00003.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(json.dumps({"text": f"file {file}"}).encode() + b"\n"))
    corpus = corpus_of(tmp_path / "set", num_files=2)
    tasks = plan(corpus)
    assert [document.text for task in tasks for document in read_task(corpus, task, Ledger())] == ["file 0", "file 1"]
    assert len(plan(corpus_of(tmp_path / "set", num_files=9))) == 3


def test_a_configuration_of_the_data_set_is_read_by_name(tmp_path: Path) -> None:
    for name in ("sample", "full"):
        write_parquet(tmp_path / "set" / name / "train-00000.parquet", 0, 2 if name == "sample" else 5)
    card = "configs:\n- {config_name: sample, data_files: sample/*}\n- {config_name: full, data_files: full/*}\n"
    (tmp_path / "set" / "README.md").write_text(f"---\n{card}---\n")
    corpus = corpus_of(tmp_path / "set", name="sample", text_column="content")
    (task,) = plan(corpus)
    assert len(list(read_task(corpus, task, Ledger()))) == 2


def test_a_damaged_file_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    for file in range(2):
        write_parquet(tmp_path / "set" / f"train-{file:05d}-of-00002.parquet", 10 * file, 10)
    corpus = corpus_of(tmp_path / "set", text_column="content")
    tasks = plan(corpus)
    damaged = tmp_path / "set" / "train-00001-of-00002.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    ledger = Ledger()
    assert len([document for task in tasks for document in read_task(corpus, task, ledger)]) == 10
    assert ledger.summary() == {"skipped": {"damaged file": 1}}


def test_a_wrong_column_is_counted_row_by_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", 0, 10)
    corpus = corpus_of(tmp_path / "set")
    ledger = Ledger()
    assert list(read_task(corpus, plan(corpus)[0], ledger)) == []
    assert ledger.summary() == {"skipped": {"no text in column text": 10}}


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing: the data set cannot be opened .*; check its name"):
        plan(corpus_of(tmp_path / "nothing"))


def test_damage_in_the_file_that_gives_the_columns_is_reported(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").write_bytes(b"PAR1 but no more")
    corpus = corpus_of(tmp_path / "set")
    with pytest.raises(ConfigError, match=r"set: the data set cannot be opened \(Parquet magic bytes not found"):
        plan(corpus)
