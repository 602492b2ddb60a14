"""Read text in any of its formats as documents."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_pipelines.corpus.documents import Document, is_corpus, read_documents
from data_pipelines.corpus.folder import read_folder
from data_pipelines.corpus.hub_texts import hub_source, read_hub_texts
from data_pipelines.corpus.saved import is_saved, read_saved
from data_pipelines.skips import Skips
from mythos.config.base import ConfigError
from mythos.data.text import printable_name

TEXT_COLUMN = "text"


class TextSource(NamedTuple):
    """Where text is read."""

    path: Path
    """A cleaned corpus, a folder of ``datasets``, a folder of text files, one file, or a name on the Hub."""
    column: str = TEXT_COLUMN
    """Column with the text, in files of rows."""

    def __str__(self) -> str:
        return printable_name(str(self.path))


def read_text(source: TextSource | Path, skips: Skips | None = None) -> Iterator[Document]:
    """Yield the documents of a text, of whichever kind it is, in a fixed order.

    A file's id is its relative path, with ``#`` and an index for a row, and its source the first folder of that path.
    Documents that are empty or cannot be read are left out; ``skips`` counts those of this reading only.

    Raises:
        ConfigError: the text is missing, one of its files is damaged or has no text in its column, or no document has
            text.
    """
    source = source if isinstance(source, TextSource) else TextSource(source)
    skips = Skips() if skips is None else skips
    skips.clear()
    is_empty = True
    for document in _read(source, skips):
        if document.text and not document.text.isspace():
            is_empty = False
            yield document
        else:
            skips.skip("empty", document.id)
    if is_empty:
        reasons = " ".join(skips.sentences()) or "Its files hold no document."
        raise ConfigError(f"{source} holds no document with text; name another. {reasons}")


def _read(source: TextSource, skips: Skips) -> Iterator[Document]:
    path, column = source
    if column == TEXT_COLUMN and path.is_dir() and is_corpus(path):
        yield from read_documents(path, skips)
        return
    if hub := hub_source(path, column):
        for row in read_hub_texts(hub, skips):
            yield Document(id=row.id, text=row.text, source=hub.path, licence="")
        return
    if path.is_dir() and is_saved(path):
        for row in read_saved(path, column, skips):
            yield Document(id=row.id, text=row.text, source=printable_name(path.name), licence="")
        return
    for name, text in read_folder(path, skips, column):
        folder, slash, _ = name.partition("/")
        yield Document(id=name, text=text, source=folder if slash else printable_name(path.name), licence="")
