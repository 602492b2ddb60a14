from pathlib import Path

import pytest

from data_pipelines.corpus.folder import read_folder
from mythos.config.base import ConfigError


def test_files_are_sorted_by_relative_path_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.txt").write_bytes(b"two\r\n")
    (tmp_path / "b.md").write_bytes("é".encode())
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "ignored.py").write_bytes(b"\xff")
    assert read_folder(tmp_path) == [("a.txt", "one"), ("b.md", "é"), ("b/a.txt", "two\r\n")]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing: no such folder; give --text"):
        read_folder(tmp_path / "nothing")


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(ConfigError, match=r"holds no \.txt or \.md file"):
        read_folder(tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "full.txt").write_text("text")
    (tmp_path / "hollow.txt").write_text("")
    with pytest.raises(ConfigError, match=r"hollow\.txt is empty"):
        read_folder(tmp_path)


def test_bytes_that_are_not_utf8_are_named_with_their_offset(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("né".encode() + b"caf\xe9.")
    with pytest.raises(ConfigError, match=r"latin\.txt is not UTF-8: byte 0xe9 at offset 6"):
        read_folder(tmp_path)
