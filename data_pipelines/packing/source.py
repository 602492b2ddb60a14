"""Read a folder of text, in either format, as documents."""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.corpus.documents import SUFFIXES, Document, read_documents
from data_pipelines.corpus.folder import read_folder


def read_text(directory: Path) -> Iterator[Document]:
    """Yield the documents of a cleaned corpus, or else each .txt and .md file below the folder, in a fixed order.

    A file's id is its relative path, and its source the first folder of that path.

    Raises:
        ConfigError: the folder is missing or holds neither, or one of its files is damaged.
    """
    if directory.is_dir() and any(path.name.endswith(SUFFIXES) for path in directory.iterdir()):
        yield from read_documents(directory)
        return
    for name, text in read_folder(directory):
        folder, slash, _ = name.partition("/")
        yield Document(id=name, text=text, source=folder if slash else directory.name, licence="")
