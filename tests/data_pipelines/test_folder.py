import gzip
import os
from pathlib import Path

import pytest
import zstandard

from data_pipelines.corpus.folder import read_folder
from data_pipelines.packing.source import read_text
from data_pipelines.skips import Skips
from mythos.config.base import ConfigError


def test_files_are_sorted_by_relative_path_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.txt").write_bytes(b"two\r\n")
    (tmp_path / "b.md").write_bytes("é".encode())
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "ignored.py").write_bytes(b"\xff")
    assert list(read_folder(tmp_path)) == [("a.txt", "one"), ("b.md", "é"), ("b/a.txt", "two\r\n")]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing: no such file or folder; name a \.txt, \.md, \.jsonl"):
        read_folder(tmp_path / "nothing")


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(
        ConfigError, match=r"does not hold a \.txt, \.md, \.jsonl .* or \.parquet file; name a folder that does"
    ):
        read_folder(tmp_path)


def test_empty_files_are_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "full.txt").write_text("text")
    (tmp_path / "hollow.txt").write_text("")
    (tmp_path / "blank.md").write_text(" \r\n")
    skips = Skips()
    assert list(read_folder(tmp_path, skips)) == [("full.txt", "text")]
    assert skips.sentences() == ["2 skipped, empty: blank.md, hollow.txt."]


def test_bytes_that_are_not_utf8_are_named_with_their_offset(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("né".encode() + b"caf\xe9.")
    with pytest.raises(ConfigError, match=r"latin\.txt is not UTF-8: byte 0xe9 at offset 6"):
        list(read_text(tmp_path))
    (tmp_path / "utf8.txt").write_text("text")
    skips = Skips()
    assert list(read_folder(tmp_path, skips)) == [("utf8.txt", "text")]
    (sentence,) = skips.sentences()
    assert "latin.txt is not UTF-8: byte 0xe9 at offset 6" in sentence


def test_files_are_read_one_at_a_time(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("before")
    documents = read_folder(tmp_path)
    assert next(documents) == ("a.txt", "before")
    (tmp_path / "c.txt").write_text("after")
    assert list(documents) == [("b.txt", "before"), ("c.txt", "after")]


def test_hidden_files_and_folders_are_skipped_and_named_once(tmp_path: Path) -> None:
    root = tmp_path / ".root"
    for name in ("a.txt", ".ipynb_checkpoints/a.txt", ".ipynb_checkpoints/b.txt", "sub/.git/x/c.md", "sub/._d.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    skips = Skips()
    assert list(read_folder(root, skips)) == [("a.txt", "text")]
    assert skips.sentences() == ["3 skipped, hidden: .ipynb_checkpoints, sub/._d.txt, sub/.git."]


def test_the_way_in_is_named_for_text_in_other_formats(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>one</p>")
    with pytest.raises(ConfigError, match=r"but 1 of other formats \(a\.html\); write 'sources: .*mythos-data clean"):
        read_folder(tmp_path)
    (tmp_path / "b.TXT").write_text("two")
    skips = Skips()
    assert list(read_folder(tmp_path, skips)) == [("b.TXT", "two")]
    assert skips.sentences() == ["1 skipped, of a format that only mythos-data clean reads: a.html."]


def test_a_file_name_that_is_not_utf8_becomes_a_readable_id(tmp_path: Path) -> None:
    for byte in (b"\xe8", b"\xe9"):
        (tmp_path / os.fsdecode(b"caf" + byte + b".txt")).write_text("text")
    names = [document.name for document in read_folder(tmp_path)]
    assert names == ["caf\\xe8.txt", "caf\\xe9.txt"]


def test_compressed_text_is_read_as_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("né\r\n".encode()))
    (tmp_path / "b.MD.zst").write_bytes(zstandard.compress(b"two"))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"caf\xe9"))
    (tmp_path / "d.tar.gz").write_bytes(b"not text")
    skips = Skips()
    assert list(read_folder(tmp_path, skips)) == [("a.txt.gz", "né\r\n"), ("b.MD.zst", "two")]
    assert dict(skips.counts) == {"to be converted to UTF-8": 1}


@pytest.mark.parametrize("name", ["a.txt.gz", "a.md.zst"])
def test_text_whose_compression_is_damaged_is_refused(tmp_path: Path, name: str) -> None:
    compress = gzip.compress if name.endswith("gz") else zstandard.compress
    (tmp_path / name).write_bytes(compress(os.urandom(1000))[:-100])
    with pytest.raises(ConfigError, match=rf"{name} is damaged \(.*\); write it again"):
        list(read_folder(tmp_path))


def test_one_file_is_read_as_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n')
    for name, expected in (("a.txt", ("a.txt", "one")), ("b.jsonl", ("b.jsonl#0", "two"))):
        assert list(read_folder(tmp_path / name)) == [expected]
    (tmp_path / "c.csv").write_text("1,2")
    with pytest.raises(ConfigError, match=r"c\.csv is not a \.txt, .* file; name a file or folder of these"):
        read_folder(tmp_path / "c.csv")
