"""Strings that no encoder accepts end no command, whichever reader they come from."""

import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_pipelines.cli import main
from data_pipelines.corpus.build import build_corpus
from data_pipelines.corpus.config import CorpusConfig, FilesSource, HubSource, NGramDecontamination
from data_pipelines.corpus.documents import read_documents
from data_pipelines.corpus.files import read_file
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.sources import plan, read_task
from data_pipelines.packing.source import read_text
from data_pipelines.skips import Skips
from mythos.config.base import ConfigError

SENTENCE = " ".join(f"the king shall speak of night {number}" for number in range(12))
LONE = b'"\\ud83d"'
BAD_NAME = os.fsdecode(b"caf\xe9")


def write_invalid_parquet(path: Path, columns: list[str]) -> None:
    """Three rows, of which the second holds a byte that is not UTF-8 in every column."""
    values = pyarrow.array([b"one", b"tw\xff", b"three"], pyarrow.binary())
    invalid = pyarrow.StringArray.from_buffers(3, *values.buffers()[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.table(dict.fromkeys(columns, invalid)), file)


def test_every_command_survives_lone_surrogates_and_names_that_are_not_utf8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / BAD_NAME / "rows"
    raw.mkdir(parents=True)
    line = b'{"text": "%s \\ud83d", "id": "%d\\udce9", "licence": "\\ud83d", "\\ud83d": [{"a": "\\ud83d"}]}\n'
    lines = b"".join(line % (SENTENCE.replace("king", f"king {number}").encode(), number) for number in range(40))
    (raw / f"{BAD_NAME}.jsonl").write_bytes(lines + b"\xff\n")
    (raw / f"{BAD_NAME}.txt").write_text(SENTENCE)
    (tmp_path / "mine.yaml").write_text(
        'sources: {"mine \\ud83d": {kind: files, dir: rows, licence: "\\ud83d", id_column: id, '
        'licence_column: licence, metadata_columns: ["\\ud83d"]}}\n'
    )
    corpus = str(tmp_path / f"{BAD_NAME}-out")
    clean = ["clean", str(tmp_path / "mine.yaml"), f"source='{raw.parent}'", "--to", corpus, "--workers", "0"]
    assert main(clean) == 0
    assert "caf\\udce9-out holds 41 documents" in capsys.readouterr().out
    assert main(clean) == 0
    report = json.loads((Path(corpus) / "report.json").read_text(encoding="utf-8"))
    assert report["problems"] == ["mine \ufffd/caf\\xe9.jsonl line 41: line is no JSON object"]
    documents = list(read_documents(Path(corpus)))
    assert {document.source for document in documents} == {"mine \ufffd"}
    assert [document.id for document in documents[:2]] == ["0\ufffd", "1\ufffd"]
    assert documents[0].text.endswith("night 11 \ufffd")
    assert documents[-1].id == "mine \ufffd/caf\\xe9.txt"
    for text in (corpus, str(raw)):
        common = ["--text", text, "--held-out-bytes", "200", "--to", str(tmp_path / f"packed-{Path(text).name}")]
        assert main(["tokenizer", "--vocab-size", "262", *common]) == 0
        assert main(["pack", "--workers", "1", *common]) == 0


def test_a_parquet_row_that_cannot_be_decoded_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / BAD_NAME / "a.parquet"
    write_invalid_parquet(path, ["text"])
    ledger = Ledger()
    rows = list(read_file(path, "s/a.parquet", "text", ledger))
    assert [(row.id, row.columns["text"]) for row in rows] == [("s/a.parquet#0", "one"), ("s/a.parquet#2", "three")]
    assert ledger.problems == ["s/a.parquet#1: row that cannot be decoded"]


def test_a_document_of_a_cleaned_corpus_that_cannot_be_decoded_is_skipped_and_named(tmp_path: Path) -> None:
    corpus = tmp_path / BAD_NAME
    write_invalid_parquet(corpus / "a.parquet", ["id", "text", "source", "licence"])
    line = b'{"id": "%s", "text": "x", "source": "s", "licence": "l"}\n'
    deep = b'{"id": ' + b"[" * 100_000 + b"\n"
    (corpus / "b.jsonl.zst").write_bytes(zstandard.compress(line % b"b" + line % b"\xff" + deep + line % b"\\ud83d"))
    skips = Skips()
    assert [document.id for document in read_text(corpus, skips)] == ["one", "three", "b", "\ufffd"]
    assert skips.sentences() == [
        "3 skipped, not decodable: document 2 of a.parquet, document 2 of b.jsonl.zst, document 3 of b.jsonl.zst."
    ]


def test_a_corpus_without_any_document_is_refused_with_the_reason(tmp_path: Path) -> None:
    line = b'{"id": "a", "text": " ", "source": "s", "licence": "l"}\n'
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(line))
    with pytest.raises(ConfigError, match=r"holds no document with text; .* 1 skipped, empty: a\."):
        list(read_text(tmp_path))


def test_json_nested_too_deeply_and_text_in_utf7_are_read_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": ' + b"[" * 100_000 + b"\n" + b'{"text": "b"}\n')
    ledger = Ledger()
    assert [row.columns["text"] for row in read_file(tmp_path / "a.jsonl", "a", "text", ledger)] == ["a", "b"]
    assert ledger.problems == ["a line 2: line is no JSON object"]
    (tmp_path / "a.html").write_bytes(b"<p>a&#xD83D;b</p>")
    (row,) = read_file(tmp_path / "a.html", "a", "text", ledger)
    assert row.columns["text"].strip() == "a\ufffdb"


def test_one_bad_row_does_not_end_a_file_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.jsonl").write_bytes(
        b'{"text": "one"}\n{"text": ' + LONE + b'}\n{"text": "\xff"}\n{"text": "three"}\n'
    )
    write_invalid_parquet(tmp_path / "columns" / "train.parquet", ["text"])
    results = {"lines": ["one", "\ufffd", "three"], "columns": ["one", "three"]}
    problems = {"lines": "train-00000 line 3: line is no JSON object", "columns": "#1: row that cannot be decoded"}
    for name, texts in results.items():
        corpus = CorpusConfig(sources={"hub": HubSource(path=str(tmp_path / name), licence="MIT")})
        ledger = Ledger()
        documents = [document for task in plan(corpus) for document in read_task(corpus, task, ledger)]
        assert [document.text for document in documents] == texts
        (problem,) = ledger.problems
        assert problem.endswith(problems[name])


def test_evaluation_sets_with_lone_surrogates_are_indexed(tmp_path: Path) -> None:
    for name in ("rows", "evals"):
        (tmp_path / name).mkdir()
    (tmp_path / "rows" / "a.txt").write_text(SENTENCE)
    (tmp_path / "evals" / f"{BAD_NAME}.jsonl").write_bytes(b'{"q": "%s \\ud83d"}\n' % SENTENCE.encode())
    corpus = CorpusConfig(
        source=str(tmp_path),
        sources={"rows": FilesSource(dir="rows", licence="MIT")},
        decontamination=NGramDecontamination(dir="evals"),
    )
    report = build_corpus(corpus, tmp_path / "out", 0)
    assert report["kept"]["documents"] == 0
    assert report["steps"]["decontaminate"]["dropped"]["matches caf\\xe9"]["documents"] == 1
