"""Texts that become names of files and folders, checked before anything is written."""

import os.path
from pathlib import PurePosixPath
from typing import Annotated, Final
from unicodedata import category

from pydantic import AfterValidator

_MAX_NAME_BYTES: Final = 255
"""Longest name that Linux's file systems take."""
_MAX_PATH_BYTES: Final = 3072
"""Longest path of a folder: Linux takes 4,096 bytes, and the names of the files in it follow."""


def checked_path(text: str) -> str:
    """Return the path of a folder or file.

    Raises:
        ValueError: no file system takes it, or it begins with ``~``.
    """
    if not text.strip():
        raise ValueError(f"{text!r} was given, perhaps from an empty variable of the shell; name a folder.")
    if control := next((character for character in text if category(character) in ("Cc", "Cs")), None):
        raise ValueError(f"{text!r} was given; leave out {control!r}, which is no character of a text.")
    if text.startswith("~"):
        raise ValueError(f"{text!r} was given, but ~ is not expanded here; write {os.path.expanduser(text)}.")  # noqa: PTH111
    num_bytes = len(text.encode())
    if num_bytes > _MAX_PATH_BYTES:
        raise ValueError(f"a path of {num_bytes} bytes was given; it has at most {_MAX_PATH_BYTES}, so shorten it.")
    longest = max(PurePosixPath(text).parts, key=lambda part: len(part.encode()), default="")
    if len(longest.encode()) > _MAX_NAME_BYTES:
        raise ValueError(
            f"a name of {len(longest.encode())} bytes was given ({longest[:20]}...), but file systems take at most "
            f"{_MAX_NAME_BYTES}; shorten it."
        )
    return text


def _below(text: str) -> str:
    """Return the name of a folder that lies below another one."""
    parts = checked_path(text).split("/")
    if not all(part.strip() for part in parts) or {".", ".."} & set(parts):
        raise ValueError(f"{text!r} was given; give the name of a folder below run.dir, without '..' or an empty part.")
    return text


FolderPath = Annotated[str, AfterValidator(checked_path)]
"""Path of a folder, or a URL."""
FolderName = Annotated[str, AfterValidator(_below)]
"""Name of a folder below another one; several parts are separated by ``/``."""
