import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_pipelines.corpus.files import is_readable, read_file
from data_pipelines.corpus.ledger import Ledger

ROWS = [{"text": f"row {number} é"} for number in range(300)]
JSON_LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def read(path: Path) -> tuple[list[str], Ledger]:
    ledger = Ledger()
    return [row.columns["text"] for row in read_file(path, path.name, "text", ledger)], ledger


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSON_LINES),
        ("a.jsonl", b"\xef\xbb\xbf" + JSON_LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl.gz", gzip.compress(JSON_LINES)),
        ("a.jsonl.zst", zstandard.compress(JSON_LINES[:1000]) + zstandard.compress(JSON_LINES[1000:])),
    ],
)
def test_json_lines_are_read_in_every_format(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    texts, ledger = read(tmp_path / name)
    assert texts == [row["text"] for row in ROWS]
    assert not ledger.counts


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", "né".encode("utf-8-sig"), "né"),
        ("a.md", b"# x\r\n", "# x\r\n"),
        ("a.rst.gz", gzip.compress(b"x", mtime=0), "x"),
        ("a.TXT.zst", zstandard.compress(b"x"), "x"),
    ],
)
def test_text_files(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name)[0] == [text]


def test_only_known_suffixes_are_readable() -> None:
    names = ["a.parquet", "a.jsonl.gz", "a.html", "a.png", "a.gz", "a", "a.json", "a.txt.bz2"]
    assert [name for name in names if is_readable(Path(name))] == ["a.parquet", "a.jsonl.gz", "a.html"]


def test_html_keeps_only_the_text_of_the_main_part(tmp_path: Path) -> None:
    page = "<html><body><nav>menu</nav><main><h1>Tïtle</h1><p>one <b>two</b></p><pre>  x = 1</pre></main>after"
    (tmp_path / "a.html").write_text(page + "<script>no()</script></body></html>")
    (text,), _ = read(tmp_path / "a.html")
    assert [line for line in text.splitlines() if line.strip()] == ["Tïtle", "one two", "  x = 1"]
    latin = b"<html><head><meta charset='latin-1'></head><body><p>caf\xe9</p><footer>foot</footer></body></html>"
    (tmp_path / "b.htm").write_bytes(latin)
    assert read(tmp_path / "b.htm")[0][0].strip() == "café"


def test_code_keeps_its_lines(tmp_path: Path) -> None:
    code = "<pre><code><b>def</b> f():\n    <i>return</i> 1<br>\n</code><button>Copy</button></pre>after"
    (tmp_path / "a.html").write_text(f"<body><p>before</p>{code}</body>")
    lines = read(tmp_path / "a.html")[0][0].splitlines()
    assert [line for line in lines if line] == ["before", "def f():", "    return 1", "after"]


def test_damaged_parquet_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=100, compression="zstd")
    assert len(read(path)[0]) == 300
    path.write_bytes(path.read_bytes()[:-30])
    texts, ledger = read(path)
    assert texts == []
    assert ledger.problems == ["a.parquet: damaged parquet"]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_truncated_stream_keeps_the_rows_before_the_damage(tmp_path: Path, suffix: str) -> None:
    # Hashes in hexadecimal compress badly, so the cut falls among the rows.
    lines = "".join(json.dumps({"text": f"{hash((n, n)):x}"}) + "\n" for n in range(40_000)).encode()
    content = gzip.compress(lines, 1) if suffix == "gz" else zstandard.compress(lines, 1)
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(content[: len(content) // 2])
    texts, ledger = read(path)
    assert 0 < len(texts) < 40_000
    assert f"a.jsonl.{suffix}: damaged compression" in ledger.problems


def test_bad_lines_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\nnonsense\n[1]\n\n{"text": "\xff"}\n{"text": "b"}\n')
    texts, ledger = read(tmp_path / "a.jsonl")
    assert texts == ["a", "b"]
    assert ledger.summary() == {"skipped": {"line is no JSON object": 3}}
    assert ledger.problems[0] == "a.jsonl line 2: line is no JSON object"


def test_files_without_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "hollow.txt").write_bytes(b" \n")
    (tmp_path / "picture.txt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "gone.txt.gz").write_bytes(b"no gzip")
    (tmp_path / "frame.html").write_bytes(b"<html><nav>menu</nav></html>")
    (tmp_path / "comment.html").write_bytes(b"<!-- nothing -->")
    reasons = {"hollow.txt": "empty file", "picture.txt": "not text", "gone.txt.gz": "damaged compression"}
    reasons |= dict.fromkeys(["frame.html", "comment.html"], "page without text")
    for name, reason in reasons.items():
        texts, ledger = read(tmp_path / name)
        assert (texts, ledger.problems) == ([], [f"{name}: {reason}"])


def test_another_encoding_is_detected_and_counted(tmp_path: Path) -> None:
    sentence = "Der Müßiggänger hörte über die schönen Straßen, daß es früher größere Türme gab. " * 20
    (tmp_path / "a.txt").write_bytes(sentence.encode("cp1252"))
    (text,), ledger = read(tmp_path / "a.txt")
    assert text == sentence
    assert sum(ledger.counts.values()) == 1
    (tmp_path / "b.txt").write_bytes(sentence.encode("utf-16"))
    assert read(tmp_path / "b.txt")[0] == [sentence]
