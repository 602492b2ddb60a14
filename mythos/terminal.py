"""Output of text from outside, such as names in manifests, without control characters that a terminal would obey."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Colours and movements of the cursor, as libraries write them too; removed."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Other control characters, those that reverse the direction of text, and halves of characters; shown as escapes."""


def printable(text: str) -> str:
    """Return text without terminal sequences and with other control characters but tabs and line ends escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), _SEQUENCE.sub("", text))


class PlainStream:
    """A text stream that writes ``printable`` text; everything else is that of the stream below."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; a carriage return at its beginning stays, with which a progress bar is drawn again."""
        again = "\r" if text.startswith("\r") else ""
        self._stream.write(again + printable(text.removeprefix(again)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """Print ``printable`` text only, to stdout and stderr."""
    before = sys.stdout, sys.stderr
    # A process without a terminal may have None.
    sys.stdout, sys.stderr = (stream and PlainStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
