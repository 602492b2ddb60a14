"""Read a folder of text, in either format, as documents."""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.corpus.documents import Document, is_document_file, read_documents
from data_pipelines.corpus.folder import read_folder
from data_pipelines.skips import Skips
from mythos.config.base import ConfigError
from mythos.data.text import printable_name


def read_text(directory: Path, skips: Skips | None = None) -> Iterator[Document]:
    """Yield the documents of a cleaned corpus, or else each .txt and .md file below the folder, in a fixed order.

    A file's id is its relative path, and its source the first folder of that path. Documents that are empty or cannot
    be read are left out; ``skips`` counts those of this reading only.

    Raises:
        ConfigError: the folder is missing or holds neither, one of its files is damaged, or no document has text.
    """
    skips = Skips() if skips is None else skips
    skips.clear()
    is_empty = True
    for document in _read(directory, skips):
        if document.text and not document.text.isspace():
            is_empty = False
            yield document
        else:
            skips.add("empty", document.id)
    if is_empty:
        reasons = " ".join(skips.sentences()) or "Its files hold no document."
        raise ConfigError(f"{directory} holds no document with text; name another folder. {reasons}")


def _read(directory: Path, skips: Skips) -> Iterator[Document]:
    if directory.is_dir() and any(is_document_file(path) for path in directory.iterdir()):
        yield from read_documents(directory, skips)
        return
    for name, text in read_folder(directory, skips):
        folder, slash, _ = name.partition("/")
        yield Document(id=name, text=text, source=folder if slash else printable_name(directory.name), licence="")
