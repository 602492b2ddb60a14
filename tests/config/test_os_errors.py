"""Errors of the operating system are sentences with the file, the reason and the advice."""

import errno
import os
import socket
import urllib.error

import pytest

from mythos.cli import main as cli
from mythos.config.base import ConfigError
from mythos.config.os_errors import explained, is_of_files, sentence


def test_the_sentence_names_the_file_the_reason_and_the_advice() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/metrics.jsonl")
    assert sentence(full) == "runs/a/metrics.jsonl: No space left on device; make room"
    assert sentence(full, "runs/b") == "runs/b: No space left on device; make room"
    unnamed = OSError(errno.EIO, os.strerror(errno.EIO))
    assert sentence(unnamed) == "Input/output error; check the file system"
    with (
        pytest.raises(ConfigError, match=r"^runs/a: File too large; raise the largest size of a file \(ulimit -f\)\.$"),
        explained("runs/a"),
    ):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((OSError(number, os.strerror(number)), True) for number in (errno.EIO, errno.ESTALE, errno.EROFS)),
        *((OSError(number, os.strerror(number)), True) for number in (errno.EACCES, errno.ENOENT, errno.ENOTCONN)),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (BrokenPipeError(errno.EPIPE, "pipe"), False),
        (ChildProcessError(errno.ECHILD, "child"), False),
        (socket.gaierror(socket.EAI_NONAME, "unknown name"), False),
        (urllib.error.URLError("no route"), False),
        (OSError("a library's own"), False),
        (OSError(errno.ENOMEM, "memory"), False),
        (OSError(errno.EADDRINUSE, "address"), False),
    ],
    ids=repr,
)
def test_errors_of_connections_and_libraries_are_not_those_of_files(error: OSError, expected: bool) -> None:
    assert is_of_files(error) == expected


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EFBIG, errno.ENOSPC, errno.EROFS])
def test_every_command_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys, number: int) -> None:
    def fail(arguments: object) -> int:
        raise OSError(number, os.strerror(number), "runs/a")

    monkeypatch.setattr(cli.report, "run", fail)
    assert cli.main(["report", "runs/a"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mythos: runs/a: {os.strerror(number)}; ")
    assert error.count("\n") == 1
