import json
from pathlib import Path

import pytest

from data_pipelines.packing.source import TextSource, read_text
from mythos.config.base import ConfigError


def test_the_source_of_a_file_is_its_first_folder(tmp_path: Path) -> None:
    (tmp_path / "prose").mkdir()
    (tmp_path / "prose" / "a.txt").write_text("one")
    (tmp_path / "b.md").write_text("two")
    assert [(d.id, d.text, d.source) for d in read_text(tmp_path)] == [
        ("b.md", "two", tmp_path.name),
        ("prose/a.txt", "one", "prose"),
    ]


def test_a_cleaned_corpus_is_read_unchanged(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    rows = [{"id": f"web-{i}", "text": f"text {i}", "source": "web", "licence": "CC0"} for i in range(3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "00000.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines))
    (tmp_path / "notes.txt").write_text("not a document of the corpus")
    assert [document._asdict() for document in read_text(tmp_path)] == rows


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not hold a \.txt, \.md, \.jsonl .* or \.parquet file"):
        list(read_text(tmp_path))


def test_hidden_files_decide_nothing(tmp_path: Path) -> None:
    (tmp_path / ".part.parquet").write_bytes(b"half")
    (tmp_path / "a.txt").write_text("one")
    assert [document.id for document in read_text(tmp_path)] == ["a.txt"]


def test_rows_of_other_columns_are_no_corpus(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    (tmp_path / "b.txt").write_text("three")
    documents = [(document.id, document.text) for document in read_text(tmp_path)]
    assert documents == [("a.jsonl.zst#0", "one"), ("a.jsonl.zst#1", "two"), ("b.txt", "three")]


def test_another_column_of_a_corpus_is_read_by_its_name(tmp_path: Path) -> None:
    row = {"id": "x", "text": "one", "source": "web", "licence": "CC0", "title": "two"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (document,) = read_text(TextSource(tmp_path, "title"))
    assert (document.id, document.text) == ("a.jsonl#0", "two")
