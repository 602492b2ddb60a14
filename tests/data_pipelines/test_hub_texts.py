"""Names of data sets on the Hub as text; the data sets are local folders in the Hub's layout."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data_pipelines.cli import main
from data_pipelines.corpus import hub, hub_texts
from data_pipelines.corpus.config import HubSource
from data_pipelines.corpus.hub_texts import hub_source, read_hub_texts
from data_pipelines.packing.source import TextSource, read_text
from data_pipelines.skips import Skips
from mythos.config.base import ConfigError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> HubSource:
    (tmp_path / "local" / "set").mkdir(parents=True)
    for file in range(2):
        lines = "".join(json.dumps({"text": f"row {file} {n}", "n": n}) + "\n" for n in range(3))
        (tmp_path / "local" / "set" / f"train-{file:05d}-of-00002.jsonl").write_text(lines)
    return HubSource(path=str(tmp_path / "local" / "set"), licence="")


def test_names_of_the_hub_and_paths_are_told_apart(tmp_path: Path) -> None:
    expected = HubSource(path="owner/name", name="part", revision="v1.0", licence="", text_column="body")
    assert hub_source(Path("owner/name:part@v1.0"), "body") == expected
    assert hub_source(Path("owner/name"), "text") == HubSource(path="owner/name", licence="")
    for path in ("name", "a/b/c", "/owner/name", "../name", "owner/", tmp_path / "name"):
        assert hub_source(Path(path), "text") is None
    (tmp_path / "owner").mkdir()
    assert hub_source(Path("owner/name"), "text") is None


def test_the_training_split_is_streamed_in_order(source: HubSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_texts, "hub_source", lambda path, column: source)
    monkeypatch.setattr("data_pipelines.packing.source.hub_source", lambda path, column: source)
    documents = list(read_text(TextSource(Path("owner/name"))))
    assert [document.text for document in documents] == [f"row {file} {n}" for file in range(2) for n in range(3)]
    assert documents[4].id.endswith("train-00001#1")


def test_parquet_is_streamed_without_its_other_columns(tmp_path: Path) -> None:
    texts = [f"row {n}" for n in range(300)]
    table = pyarrow.table({"text": texts, "n": range(300)})
    (tmp_path / "local" / "set").mkdir(parents=True)
    pyarrow.parquet.write_table(table, tmp_path / "local" / "set" / "train.parquet")
    source = HubSource(path=str(tmp_path / "local" / "set"), licence="")
    rows = list(hub.read_hub_file(source, 0, Skips(), text_column_only=True))
    assert [row.columns for row in rows] == [{"text": text} for text in texts]
    assert [row.text for row in read_hub_texts(source, Skips())] == texts
    with pytest.raises(ConfigError, match=r"set: row 1 has no column 'body'; its columns are text, n; name"):
        list(read_hub_texts(HubSource(path=source.path, licence="", text_column="body"), Skips()))


def test_a_column_without_text_is_refused(source: HubSource) -> None:
    source = HubSource(path=source.path, licence="", text_column="n")
    with pytest.raises(ConfigError, match=r"set: row 1 has a number in the column 'n', as 2 other rows"):
        list(read_hub_texts(source, Skips()))


def test_a_name_without_network_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tokenizer", "--text", "owner/name", "--to", "packed"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("mythos-data: there is no file or folder owner/name here, and on the Hub, owner/name: the ")
    assert error.endswith("; check its name, the network and, for gated sets, HF_TOKEN.\n")
    assert not (tmp_path / "packed").exists()


def test_a_lost_connection_names_the_file(source: HubSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*arguments: object, **named: object) -> Iterator[object]:
        raise ConnectionError("Server\ndisconnected.")
        yield

    monkeypatch.setattr(hub, "read_hub_file", lose)
    with pytest.raises(ConfigError, match=r"set: reading from the Hub failed in file 1 of 2 \(Server disconnected\);"):
        list(read_hub_texts(source, Skips()))
