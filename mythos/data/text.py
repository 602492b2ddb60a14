"""Make strings from outside encodable: JSON escapes, arguments and file names can hold lone surrogates."""

import re
from typing import Any


def encodable(text: str) -> str:
    """Return a text that every encoder and tokenizer accepts, with U+FFFD in place of each lone surrogate.

    A pair of surrogates becomes the character that it stands for.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def encodable_values(value: Any) -> Any:
    """Return plain data (dicts, lists and scalars) in which every string, keys included, is ``encodable``."""
    match value:
        case str():
            return encodable(value)
        case dict():
            return {encodable_values(key): encodable_values(part) for key, part in value.items()}
        case list() | tuple():
            return [encodable_values(part) for part in value]
    return value


def printable_name(name: str) -> str:
    r"""Return a file name as text: a byte that is not UTF-8 becomes ``\xNN``, so that names stay different."""
    return encodable(re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name))
