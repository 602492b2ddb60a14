"""A resumed run appends to its records, whatever has become of single lines of them."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from mythos.callbacks.record_file import RecordFile
from mythos.config.base import ConfigError
from mythos.config.records import SCHEMA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the records of four steps."""
    path = tmp_path / "metrics.jsonl"
    file = RecordFile(path, 0)
    for step in range(1, 5):
        file.write({"x": float(step)}, step)
    file.close()
    return path


@pytest.fixture
def file_limit() -> Iterator[None]:
    """The system refuses to let files grow beyond 2 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def steps(path: Path) -> list[int]:
    first, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert first == {"schema": SCHEMA}
    return [line["step"] for line in lines]


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"step": 2, "ti',
        b"\0" * 40,
        b'{"step": 2, "x": "\xff\xfe"}',
        b"3",
        b"[1]",
        b'"step"',
        b'{"x": 1}',
        b'{"step": null}',
        b'{"step": "2"}',
        b"",
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:20]),
)
def test_a_damaged_line_in_the_middle_is_dropped_with_a_warning(path: Path, capsys, damaged: bytes) -> None:
    lines = path.read_bytes().splitlines()
    lines[2] = damaged
    path.write_bytes(b"\n".join([*lines, b'{"step": 5, "tim']))
    RecordFile(path, 4).close()
    assert steps(path) == [1, 3, 4]
    assert capsys.readouterr().err == f"warning: {path}: line 3 is damaged and dropped.\n"


def test_several_damaged_lines_are_one_warning(path: Path, capsys) -> None:
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([b"{", *lines[1:], b"{", b'{"step": 5}', b""]))
    RecordFile(path, 4).close()
    assert steps(path) == [1, 2, 3, 4]
    assert capsys.readouterr().err == f"warning: {path}: 2 lines, the first 1, are damaged and dropped.\n"


def test_later_records_and_an_incomplete_line_are_dropped_without_one(path: Path, capsys) -> None:
    with path.open("a") as file:
        file.write('{"step": 5')
    RecordFile(path, 3).close()
    assert steps(path) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_a_refused_write_is_a_sentence_and_leaves_the_records(path: Path, file_limit: None) -> None:
    file = RecordFile(path, 4)

    def write_until_refused() -> None:
        for step in range(5, 1000):
            file.write({"x": float(step)}, step)

    with pytest.raises(ConfigError, match=rf"^{path}: File too large; raise the largest size of a file"):
        write_until_refused()
    with pytest.raises(ConfigError, match=rf"^{path}: File too large"):
        file.close()
    *complete, _ = path.read_bytes().split(b"\n")
    assert [json.loads(line)["step"] for line in complete[1:]] == list(range(1, len(complete)))


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"^{link}: it is a link, which is not followed"):
        RecordFile(link, 1)
    assert path.read_bytes() == before


def test_an_unreadable_file_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*rest: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=rf"^{path}: Input/output error; check the file system\.$"):
        RecordFile(path, 1)
