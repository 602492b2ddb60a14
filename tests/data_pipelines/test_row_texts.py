"""Columns of text in JSON lines, parquet and the Arrow files of ``datasets``."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_pipelines.corpus.row_texts import MOST_ROWS_WITHOUT_TEXT, read_row_texts
from data_pipelines.skips import Skips
from mythos.config.base import ConfigError


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows as parquet or JSON lines, by the suffix."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path, column: str = "text") -> tuple[list[str], Skips]:
    skips = Skips()
    return [row.text for row in read_row_texts(path, path.name, column, skips)], skips


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "null in the column 'text', as 1 other rows and none with text"),
        (3, "a number in the column 'text', as 1 other rows and none with text"),
        ([1], "a list in the column 'text', as 1 other rows and none with text"),
    ],
)
def test_a_column_without_any_text_is_refused_with_its_first_row(
    name: str, value: object, problem: str, tmp_path: Path
) -> None:
    write_rows(tmp_path / name, [{"id": "x", "text": value}] * 2)
    with pytest.raises(ConfigError) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: row 1 has {problem}; its columns are ")
    assert str(error.value).endswith("; name the one of the text with --text-column.")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_missing_column_is_refused_with_those_that_are_there(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name, [{"id": "x", "body": "one"}])
    with pytest.raises(ConfigError, match=rf"{name}: row 1 has no column 'text'; its columns are id, body; name"):
        read(tmp_path / name)
    assert read(tmp_path / name, "body")[0] == ["one"]


def test_a_column_without_text_is_refused_before_the_whole_file_is_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": 1}] * MOST_ROWS_WITHOUT_TEXT + [{"text": "late"}])
    with pytest.raises(ConfigError, match="as 999 other rows and none with text"):
        read(tmp_path / "a.jsonl")
    write_rows(tmp_path / "a.jsonl", [{"text": 1}] * (MOST_ROWS_WITHOUT_TEXT - 1) + [{"text": "in time"}])
    texts, skips = read(tmp_path / "a.jsonl")
    assert texts == ["in time"]
    assert sum(skips.counts.values()) == 999


def test_rows_without_text_among_others_are_skipped_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": null}\n\n{"text": "one"}\n{"text": 4}\n{"body": "x"}\n[1]\n{"text": "\xff"}\n{"text": true}\n'
    )
    texts, skips = read(tmp_path / "a.jsonl")
    assert texts == ["one"]
    assert skips.sentences() == [
        "1 skipped, null in the column 'text': a.jsonl row 1.",
        "1 skipped, a number in the column 'text': a.jsonl row 4.",
        "1 skipped, no column 'text': a.jsonl row 5.",
        "2 skipped, line is no JSON object: a.jsonl line 6, a.jsonl line 7.",
        "1 skipped, a truth value in the column 'text': a.jsonl row 8.",
    ]
    write_rows(tmp_path / "a.parquet", [{"text": text} for text in ("one", None, "two")])
    texts, skips = read(tmp_path / "a.parquet")
    assert texts == ["one", "two"]
    assert skips.sentences() == ["1 skipped, null in the column 'text': a.parquet row 2."]


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_parquet_file_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [{"text": f"row {n}"} for n in range(100)])
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"a\.parquet is damaged after row 0 \(.*\); write it again\.$"):
        read(tmp_path / "a.parquet")


def test_damage_inside_a_parquet_file_is_refused_with_the_row_before(tmp_path: Path) -> None:
    path, table = tmp_path / "a.parquet", pyarrow.table({"text": [os.urandom(50).hex() for _ in range(200)]})
    pyarrow.parquet.write_table(table, path, row_group_size=128, use_dictionary=False)
    start = pyarrow.parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.parquet is damaged after row 128 \("):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_compressed_lines_cut_short_are_refused(name: str, tmp_path: Path) -> None:
    lines = b"".join(b'{"text": "%s"}\n' % os.urandom(2000).hex().encode() for _ in range(100))
    compress = gzip.compress if name.endswith("gz") else zstandard.compress
    (tmp_path / name).write_bytes(compress(lines)[:-1000])
    with pytest.raises(ConfigError, match=rf"{name} is damaged after row 9\d \("):
        read(tmp_path / name)


PROGRAM = """
import sys
from pathlib import Path
import pyarrow.parquet
from data_pipelines.packing.held_out import HeldOutBytes, split_documents
from data_pipelines.packing.source import TextSource

def memory_mib():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024

before = memory_mib()
parts = split_documents(TextSource(Path(sys.argv[1])), HeldOutBytes(num_bytes=1000))
print(sum(len(part.document.text) for part in parts), memory_mib() - before, "datasets" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.parquet"])
def test_memory_does_not_depend_on_the_size_of_a_file(name: str, tmp_path: Path) -> None:
    text, num_rows = "the king speaks " * 500, 20_000  # 160 MB in one group of rows
    if name == "a.parquet":
        texts = (f"{n} {text}"[: len(text)] for n in range(num_rows))
        with pyarrow.parquet.ParquetWriter(
            tmp_path / name, pyarrow.schema([("text", pyarrow.string())]), compression="none"
        ) as writer:
            writer.write_table(pyarrow.table({"text": list(texts)}), row_group_size=num_rows)
    else:
        with (tmp_path / name).open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as compressed:
            for n in range(num_rows):
                compressed.write(json.dumps({"text": f"{n} {text}"[: len(text)]}).encode() + b"\n")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(result[0]) == num_rows * len(text)
    assert float(result[1]) < 90
    assert result[2] == "False"
