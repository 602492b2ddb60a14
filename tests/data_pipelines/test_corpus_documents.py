from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_pipelines.corpus.documents import Document, read_documents
from mythos.config.base import ConfigError

LINE = b'{"id": "a", "text": "one\xc3\xa9", "source": "s", "licence": "MIT", "metadata": {"url": "u"}}\n'


def test_both_formats_are_read_in_order_of_file_name(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(LINE))
    table = pyarrow.table({"id": ["p"], "text": ["two"], "source": ["t"], "licence": ["CC0"], "extra": [1]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "report.json").write_text("{}")
    assert list(read_documents(tmp_path)) == [("p", "two", "t", "CC0"), Document("a", "oneé", "s", "MIT")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.zst", zstandard.compress(LINE * 50)[:-20], "damaged at line"),
        ("a.jsonl.zst", b"not zstd", "damaged at line 0"),
        ("a.jsonl.zst", zstandard.compress(LINE + b"{"), "damaged at line 2"),
        ("a.jsonl.zst", zstandard.compress(LINE[:-1]), "not a complete JSON object"),
        ("a.jsonl.zst", zstandard.compress(b'{"text": "x"}\n'), "document 1 has the columns text, but id, text"),
        ("a.parquet", b"PAR1 but no more", "damaged"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name}.*{message}"):
        list(read_documents(tmp_path))


def test_a_folder_that_is_missing_empty_or_unfinished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        list(read_documents(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"holds no \.jsonl\.zst"):
        list(read_documents(tmp_path))
    (tmp_path / "stages").mkdir()
    with pytest.raises(ConfigError, match="is not finished"):
        list(read_documents(tmp_path))
