"""Normalise text: repair the encoding, unify line ends, remove control characters, cut long texts."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from datatrove.data import Document
from datatrove.pipeline.formatters import FTFYFormatter

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_BLANKS: Final = " \t\u00a0"
_BLANK_LINES: Final = re.compile(r"\n{3,}")


def normalise(text: str, *, fix_encoding: bool) -> str:
    """Return the text with line feeds only, at most one blank line in a row, and no control characters.

    Indentation, quotes and letters are not changed, so that code stays intact.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if fix_encoding:
        text = _fixer().format(text)
    # A regular expression for blanks before a line end takes quadratic time in a run of blanks elsewhere.
    text = "\n".join(line.rstrip(_BLANKS) for line in _CONTROL.sub("", text).split("\n"))
    # Surrogates cannot be written as UTF-8.
    text = text.encode("utf-8", errors="ignore").decode("utf-8")
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def cut(document: Document, max_characters: int) -> Iterator[Document]:
    """Yield the document, or numbered pieces of at most ``max_characters``, cut after a line where possible."""
    text = document.text
    if len(text) <= max_characters:
        yield document
        return
    start = number = 0
    while start < len(text):
        end = start + max_characters
        if end < len(text):
            end = max(text.rfind("\n", start, end) + 1, 0) or end
        piece = text[start:end].strip("\n")
        start = end
        if piece:
            yield Document(text=piece, id=f"{document.id}@{number}", metadata=dict(document.metadata))
            number += 1


@cache
def _fixer() -> FTFYFormatter:
    return FTFYFormatter(unescape_html=False)
