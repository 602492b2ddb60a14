"""Cut text into pieces for the library, at positions that no token of our tokenizers crosses."""

import re
from collections.abc import Iterator
from typing import Final

PIECE_NUM_CHARS: Final = 2**13
"""Characters that are encoded at a time: long texts make the library slow and need much memory."""
_LINE_END = re.compile(r"\n(?=\S)")


def cut(text: str) -> Iterator[str]:
    """Yield a text in pieces, cut only after a line end without following whitespace, which no token crosses."""
    begin = 0
    while match := _LINE_END.search(text, begin + PIECE_NUM_CHARS):
        yield text[begin : match.end()]
        begin = match.end()
    if begin < len(text):
        yield text[begin:]
