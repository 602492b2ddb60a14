"""List the tasks of a corpus, and read the documents of one task."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document

from data_pipelines.corpus.config import CorpusConfig, DebianSource, FilesSource, HubSource
from data_pipelines.corpus.files import is_readable, read_file, without_hidden
from data_pipelines.corpus.folder import hidden_entry
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.rows import Row
from mythos.config.base import ConfigError, config
from mythos.data.text import encodable


@config
class Task:
    """Input files that become one shard."""

    source: str
    """Name among the corpus's sources."""
    licence: str
    files: tuple[tuple[str, int], ...] = ()
    """Path inside the source's folder and size in bytes of each file; another size makes another plan."""
    hub_file: int | None = None


def resolve(corpus: CorpusConfig, directory: str) -> Path:
    """Path of a folder that the configuration names."""
    return Path(corpus.source or ".", directory).expanduser()


def plan(corpus: CorpusConfig, ledger: Ledger | None = None) -> list[Task]:
    """List every task in order, a pure function of the configuration and of the folders' contents.

    Hidden files and folders are left out and counted in ``ledger``, unless the source's pattern names them.

    Raises:
        ConfigError: a folder is missing or holds nothing to read, or a data set cannot be opened.
    """
    tasks: list[Task] = []
    ledger = Ledger() if ledger is None else ledger
    for name, source in corpus.sources.items():
        match source:
            case FilesSource():
                tasks += _group(corpus, name, source.licence, source.dir, "", source.pattern, ledger)
            case DebianSource():
                for package_name, package in source.packages.items():
                    folder, licence, pattern = source.dir, package.licence, package.pattern
                    tasks += _group(corpus, name, licence, folder, package_name, pattern, ledger)
            case HubSource():
                from data_pipelines.corpus.hub import count_files

                number = count_files(source)
                tasks += [Task(source=name, licence=source.licence, hub_file=index) for index in range(number)]
    return tasks


def read_task(corpus: CorpusConfig, task: Task, ledger: Ledger) -> Iterator[Document]:
    """Yield the raw documents of one task; records without text are skipped and counted.

    Raises:
        ConfigError: a file of the plan does not exist any more.
    """
    source = corpus.sources[task.source]
    for row in _rows(corpus, task, ledger):
        columns = dict(row.columns)
        if isinstance(source, DebianSource):
            yield _document(row.id, columns["text"], task.source, task.licence, {})
            continue
        text = columns.get(source.text_column)
        if not isinstance(text, str) or not text.strip():
            ledger.skip(f"no text in column {source.text_column}", row.id)
            continue
        licence = columns.get(source.licence_column or "") or task.licence
        identifier = columns.get(source.id_column or "") or row.id
        metadata = {name: columns.get(name) for name in map(encodable, source.metadata_columns)}
        yield _document(str(identifier), text, task.source, _joined(licence), metadata)


def _rows(corpus: CorpusConfig, task: Task, ledger: Ledger) -> Iterator[Row]:
    source = corpus.sources[task.source]
    if isinstance(source, HubSource):
        from data_pipelines.corpus.hub import read_hub_file

        assert task.hub_file is not None
        yield from read_hub_file(source, task.hub_file, ledger)
        return
    directory = resolve(corpus, source.dir)
    text_column = "text" if isinstance(source, DebianSource) else source.text_column
    for name, _ in task.files:
        try:
            yield from read_file(directory / name, f"{task.source}/{name}", text_column, ledger)
        except FileNotFoundError:
            raise ConfigError(
                f"sources.{task.source}: {directory / name} was there when the run began and is gone; restore it "
                "and run again, finished shards are kept."
            ) from None


def _group(
    corpus: CorpusConfig, name: str, licence: str, parent: str, package: str, pattern: str, ledger: Ledger
) -> list[Task]:
    """Group files, in order of their paths, into tasks that reach ``shard_bytes``."""
    directory = resolve(corpus, parent)
    if not (directory / package).is_dir():
        advice = "run mythos-data fetch first" if package else "put the files there or set source="
        raise ConfigError(f"sources.{name}.dir: {directory / package}: no such folder; {advice}.")
    paths = sorted(path for path in (directory / package).glob(pattern) if path.is_file() and is_readable(path))
    if hidden_entry(pattern) is None:
        paths = without_hidden(paths, directory / package, f"{name}/{package}" if package else name, ledger)
    if not paths:
        raise ConfigError(
            f"sources.{name}: {directory / package} holds no file {pattern} of a known kind; check it and dir."
        )
    tasks: list[Task] = []
    files: list[tuple[str, int]] = []
    num_bytes = 0
    for path in paths:
        files.append((path.relative_to(directory).as_posix(), size := path.stat().st_size))
        num_bytes += size
        if num_bytes >= corpus.shard_bytes or path == paths[-1]:
            tasks.append(Task(source=name, licence=licence, files=tuple(files)))
            files, num_bytes = [], 0
    return tasks


def _document(identifier: str, text: str, source: str, licence: str, metadata: dict[str, Any]) -> Document:
    # The names of the source and of its licence come from the configuration.
    origin = {"source": encodable(source), "licence": encodable(licence)}
    return Document(text=text, id=identifier, metadata=metadata | origin)


def _joined(licence: Any) -> str:
    """Join several licences of one document into one expression."""
    return " OR ".join(map(str, licence)) if isinstance(licence, list) else str(licence)
