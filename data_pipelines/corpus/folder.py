"""Read a folder of text files as documents."""

from pathlib import Path
from typing import NamedTuple

from mythos.config.base import ConfigError

SUFFIXES = (".md", ".txt")


class Document(NamedTuple):
    """One text and its path."""

    name: str
    """Path inside the folder, with forward slashes."""
    text: str


def read_folder(directory: Path) -> list[Document]:
    """Read every .txt and .md file below ``directory``, sorted by relative path; line ends are not changed.

    Raises:
        ConfigError: the folder is missing or holds no text file, or a file is empty or not UTF-8.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such folder; give --text a folder of .txt or .md files.")
    paths = {
        path.relative_to(directory).as_posix(): path
        for path in directory.rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    }
    if not paths:
        raise ConfigError(f"{directory} holds no .txt or .md file; give --text a folder that does.")
    return [Document(name, _read_text(paths[name])) for name in sorted(paths)]


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    if not content:
        raise ConfigError(f"{path} is empty; remove it, or put text into it.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start}; convert it "
            "to UTF-8 or remove it."
        ) from None
