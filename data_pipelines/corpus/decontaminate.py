"""Cut text out of the corpus that shares an n-gram of words with an evaluation set.

datatrove's filter finds the matches. Its indexer is not used, since even for local sets it requires lighteval, and with
it torch and transformers; the index is written here instead, in the filter's format.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
from datatrove.utils.hashing import HashConfig, create_hash_func
from datatrove.utils.text import TextNormConfig, ngrams, simplify_text

from data_pipelines.corpus.config import NGramDecontamination
from data_pipelines.corpus.files import is_readable, read_file, without_hidden
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.shards import read_shard, shard_path, write_shard
from data_pipelines.corpus.words import WORDS
from mythos.config.base import ConfigError
from mythos.data.text import printable_name

_NORMALISATION: Final = TextNormConfig(norm_numbers=False)
"""Numbers are kept: if all became 0, tables of numbers would match each other."""
_HASH: Final = HashConfig(hash_fc="sha1")
_LEAST_CHARACTERS: Final = 200
"""Shorter parts between two cuts are dropped as well (Brown et al. 2020)."""
_BORDER_CHARACTERS: Final = 400
"""Length of the previous window's end that is searched again, enough for any n-gram that begins there."""


def evaluation_files(directory: Path, ledger: Ledger | None = None) -> list[Path]:
    """Paths of the evaluation sets, sorted, without hidden ones, which ``ledger`` counts.

    Raises:
        ConfigError: there are none.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and is_readable(path))
    paths = without_hidden(paths, directory, "evaluation sets", Ledger() if ledger is None else ledger)
    if not paths:
        raise ConfigError(
            f"decontamination.dir: {directory} holds no evaluation set; put .jsonl or .txt files there, or set "
            "decontamination.kind=none."
        )
    return paths


def write_index(evaluations: Path, config: NGramDecontamination, output: Path, index: int) -> Ledger:
    """Hash every n-gram of ``num_words`` words of every set; shorter items cannot be found."""
    del index
    ledger = Ledger()
    hash_of = create_hash_func(_HASH)
    hashes: defaultdict[str, set[int]] = defaultdict(set)
    for path in evaluation_files(evaluations, ledger):
        name = printable_name(path.relative_to(evaluations).as_posix())
        # Several files may share a task, such as boolq.train.jsonl and boolq.test.jsonl.
        of_task = hashes[name.split(".")[0].replace("/", "-")]
        for row in read_file(path, name, "text", ledger):
            words = WORDS.word_tokenize(simplify_text(" ".join(_strings(row.columns)), _NORMALISATION))
            ledger.note(f"items of {config.num_words} words or more", int(len(words) >= config.num_words))
            ledger.note("shorter items, which cannot be found", int(len(words) < config.num_words))
            of_task.update(hash_of(" ".join(n_gram)) for n_gram in ngrams(words, config.num_words))
    for task, of_task in hashes.items():
        np.array(sorted(of_task), dtype=np.uint64).tofile(output / f"{task}.index.hashes")
    return ledger


def decontaminate(shards: Path, hashes: Path, config: NGramDecontamination, output: Path, index: int) -> Ledger:
    """Write one shard without the lines around each match; each part between two cuts becomes a document."""
    ledger = Ledger()
    block = _filter(hashes, config.num_words)
    source = ledger.count_read(read_shard(shard_path(shards, index)))
    kept = (part for document in source for part in _clean_parts(document, block, config.window_characters, ledger))
    write_shard(shard_path(output, index), ledger.count_kept(kept))
    return ledger


def _clean_parts(
    document: Document, block: NGramsDecontFilter, window_characters: int, ledger: Ledger
) -> Iterator[Document]:
    if block.filter(document) is True:
        yield document
        return
    ledger.note("documents that matched before")
    parts: list[str] = []
    run: list[str] = []
    tail = ""
    for window in _windows(document.text, window_characters):
        # The end of the previous window is searched too, so that matches across the border are found.
        probe = Document(text=tail + window, id="")
        if block.filter(probe) is True:
            run.append(window)
        else:
            ledger.drop(f"matches {probe.metadata['contaminated_task']}", Document(text=window, id=""))
            parts.append("".join(run))
            run = []
        tail = run[-1][-_BORDER_CHARACTERS:] if run else ""
    for number, text in enumerate(filter(None, [*parts, "".join(run)])):
        part = Document(text=text.strip("\n"), id=f"{document.id}~{number}", metadata=_origin(document))
        if len(part.text) < _LEAST_CHARACTERS:
            if part.text:
                ledger.drop("short remains", part)
        elif block.filter(part) is True:
            yield part
        else:
            ledger.drop("still matches", part)


def _windows(text: str, num_characters: int) -> Iterator[str]:
    """Yield consecutive parts of the text, each of whole lines that reach ``num_characters``."""
    window = ""
    for line in text.splitlines(keepends=True):
        window += line
        if len(window) >= num_characters:
            yield window
            window = ""
    if window:
        yield window


def _origin(document: Document) -> dict[str, Any]:
    return {name: value for name, value in document.metadata.items() if not name.startswith("contaminated_")}


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in a record, in order."""
    match value:
        case str():
            yield value
        case dict():
            for part in value.values():
                yield from _strings(part)
        case list():
            for part in value:
                yield from _strings(part)


@cache
def _filter(directory: Path, num_words: int) -> NGramsDecontFilter:
    config = NGramsDecontConfig(n_grams=num_words, norm_config=_NORMALISATION, hash_config=_HASH)
    return NGramsDecontFilter(str(directory), config, language=WORDS)
