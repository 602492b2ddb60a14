"""Cut text so that no pre-token is long: training takes quadratic time in the longest one.

A pre-token is a part of the text that the tokenizer's pattern leaves whole, as a word, before bytes are merged.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from tokenizers.pre_tokenizers import PreTokenizer

MOST_CHARS: Final = 1024
"""Length of the longest pre-token that is trained on whole; words are shorter, also in languages without blanks."""
_STRETCH_NUM_CHARS: Final = MOST_CHARS // 2
_BREAK: Final = re.compile(r"(?<=\S)(?= )|(?<=\n)(?=\S)")
"""Positions that no pre-token of our pattern crosses, since a blank can only open one and a line feed only end one."""


def cut_long(text: str, split: PreTokenizer, report: Callable[[int], None]) -> Iterator[str]:
    """Yield the text in parts whose pre-tokens are those of the whole, except that long ones are cut.

    Args:
        split: splits a text into pre-tokens.
        report: called with the length in characters of each pre-token that is cut.
    """
    begin = 0
    for start, end in _long(text, split):
        report(end - start)
        if begin < start:
            yield text[begin:start]
        yield from (text[at : min(at + MOST_CHARS, end)] for at in range(start, end, MOST_CHARS))
        begin = end
    if begin < len(text):
        yield text[begin:]


def _long(text: str, split: PreTokenizer) -> Iterator[tuple[int, int]]:
    """Yield the spans of the long pre-tokens, in order."""
    begin = 0
    while len(text) - begin > MOST_CHARS:
        found = _BREAK.search(text, begin + _STRETCH_NUM_CHARS)
        end = found.start() if found else len(text)
        # Only stretches without a sure break are split by the library, which is slower.
        if end - begin > MOST_CHARS:
            for _, (start, stop) in split.pre_tokenize_str(text[begin:end]):
                if stop - start > MOST_CHARS:
                    yield begin + start, begin + stop
        begin = end
