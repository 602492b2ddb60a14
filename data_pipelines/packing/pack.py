"""Tokenise text into a packed dataset."""

import hashlib
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field
from tqdm import tqdm

from data_pipelines.lock import locked
from data_pipelines.packing.best_fit import SHARD_NUM_TOKENS as BEST_FIT_SHARD_NUM_TOKENS
from data_pipelines.packing.best_fit import BestFitWriter
from data_pipelines.packing.held_out import HeldOut, Part, SplitName, split_documents
from data_pipelines.packing.progress import Progress, forget_progress, read_progress, write_progress
from data_pipelines.packing.source import TextSource
from data_pipelines.packing.tokenize import tokenize
from mythos.config.base import ConfigError, config, fingerprint
from mythos.data.manifest import (
    FILE_NAME,
    SEPARATOR,
    TOKENIZER_FILE,
    VERSION,
    Manifest,
    TokenType,
    read_manifest,
    write_manifest,
)
from mythos.data.shards import SplitWriter
from mythos.data.tokenizer import read_tokenizer, separator_id_of
from mythos.files import remove, sha256

SHARD_NUM_TOKENS: Final = 2**27
"""Largest number of tokens in a shard: 256 MiB of uint16."""
FILES: Final = (
    *(f"*-[0-9][0-9][0-9][0-9][0-9].{kind}" for kind in ("tokens", "documents", "ignored")),
    "*-examples.jsonl",
)
"""Patterns of a dataset's files other than its tokenizer and its manifest."""
Writers = dict[SplitName, SplitWriter | BestFitWriter]


@config
class PackOptions:
    """Options that, together with the text and the tokenizer, determine every byte of a dataset."""

    held_out: HeldOut
    seq_len: Annotated[int, Field(ge=2, strict=True)] | None = None
    """Fit training documents into windows of this length; null keeps them in one stream."""
    shard_num_tokens: Annotated[int, Field(ge=2, strict=True)] = SHARD_NUM_TOKENS
    """Largest number of tokens in a shard."""


def pack(
    text: TextSource | Path,
    directory: Path,
    options: PackOptions,
    overwrite: bool = False,
    num_workers: int = 1,
    separator: str = SEPARATOR,
) -> Manifest:
    """Write the shards and the manifest beside ``directory/tokenizer.json``.

    Everything is written into a hidden folder inside ``directory``, then renamed file by file, the manifest last; only
    a directory with a manifest is a dataset. A run that was stopped resumes after its last finished training shard.
    Does nothing if the same inputs are packed already.

    Raises:
        ConfigError: text, tokenizer or sizes are unusable, another run is at work in ``directory``, or another dataset
            is there and ``overwrite`` is false.
    """
    tokenizer_path = directory / TOKENIZER_FILE
    tokenizer = read_tokenizer(tokenizer_path)
    separator_id = separator_id_of(tokenizer, tokenizer_path, separator)
    tokenizer_sha256 = sha256(tokenizer_path)
    key = f"{VERSION} {tokenizer_sha256} {fingerprint(options)}"
    if separator != SEPARATOR:
        key += f" {separator_id}"
    if not overwrite and (existing := _existing(text, directory, options, key)):
        return existing
    vocab_size = max(tokenizer.get_vocab().values()) + 1  # some tokenizers leave ids out
    dtype: TokenType = "uint16" if vocab_size <= 2**16 else "uint32"
    partial = directory / ".packing"
    with locked(directory):
        # Another run may have written its dataset before this one had the lock.
        if not overwrite and (existing := _existing(text, directory, options, key)):
            return existing
        partial.mkdir(exist_ok=True)
        try:
            writers, digest = _write(text, partial, options, key, tokenizer_path, dtype, separator_id, num_workers)
            manifest = Manifest(
                dtype=dtype,
                vocab_size=vocab_size,
                separator_id=separator_id,
                tokenizer_sha256=tokenizer_sha256,
                inputs_sha256=_inputs_sha256(key, digest),
                splits={name: writer.finish() for name, writer in writers.items()},
            )
            publish(partial, directory, manifest)
        finally:
            if read_progress(partial, key) is None:
                remove(partial)
    return manifest


def _existing(text: TextSource | Path, directory: Path, options: PackOptions, key: str) -> Manifest | None:
    """Manifest of the dataset in the folder, if it was packed from the same inputs; None if there is no dataset.

    Raises:
        ConfigError: there is another dataset.
    """
    if not (directory / FILE_NAME).exists():
        return None
    digest = _Digest()
    for part in split_documents(text, options.held_out):
        digest.update(part)
    existing = read_manifest(directory)
    if existing.inputs_sha256 != _inputs_sha256(key, digest):
        raise ConfigError(f"{directory} holds another dataset; give --overwrite to replace it, or another --to.")
    return existing


def publish(partial: Path, directory: Path, manifest: Manifest) -> None:
    """Rename a dataset's files to their final names, after deleting the old manifest and before adding the new."""
    write_manifest(partial, manifest)
    # From here on nothing needs space on the disk, and a partly renamed dataset cannot be resumed.
    forget_progress(partial)
    (directory / FILE_NAME).unlink(missing_ok=True)
    for pattern in FILES:
        for stale in directory.glob(pattern):
            stale.unlink()
    for shard in chain.from_iterable(split.shards for split in manifest.splits.values()):
        for name in filter(None, (shard.tokens_file, shard.documents_file, shard.ignored_file)):
            (partial / name).replace(directory / name)
    for name in filter(None, (split.examples_file for split in manifest.splits.values())):
        (partial / name).replace(directory / name)
    (partial / FILE_NAME).replace(directory / FILE_NAME)
    remove(partial)


def _write(
    text: TextSource | Path,
    partial: Path,
    options: PackOptions,
    key: str,
    tokenizer_path: Path,
    dtype: TokenType,
    separator_id: int,
    num_workers: int,
) -> tuple[Writers, "_Digest"]:
    """Tokenise and write everything except what an earlier call has finished."""
    digest = _Digest()
    progress = read_progress(partial, key) or Progress(key=key)
    parts = split_documents(text, options.held_out)
    for part in islice(parts, progress.num_parts):
        digest.update(part)
    if (digest.num_parts, digest.hexdigest()) != (progress.num_parts, progress.parts_sha256 or digest.hexdigest()):
        # The text has changed since the interruption.
        remove(partial)
        partial.mkdir()
        return _write(text, partial, options, key, tokenizer_path, dtype, separator_id, num_workers)
    writers = _writers(partial, options, dtype, separator_id, progress)
    try:
        with tqdm(desc="packing", unit="B", unit_scale=True, disable=None) as bar:
            for part, ids in tokenize(parts, lambda part: part.document.text, tokenizer_path, num_workers):
                if part.split == "train" and not writers["train"].fits(len(ids)):
                    _save(partial, key, writers, digest)
                num_bytes = len(part.document.text.encode())
                writers[part.split].add(ids, num_bytes)
                digest.update(part)
                bar.update(num_bytes)
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise
    return writers, digest


def _writers(partial: Path, options: PackOptions, dtype: TokenType, separator_id: int, progress: Progress) -> Writers:
    def stream(name: SplitName) -> SplitWriter:
        shards = progress.shards.get(name, ())
        return SplitWriter(partial, name, dtype, separator_id, options.shard_num_tokens, shards)

    if options.seq_len is None:
        return {"train": stream("train"), "validation": stream("validation")}
    size = min(options.shard_num_tokens, BEST_FIT_SHARD_NUM_TOKENS)
    shards = progress.shards.get("train", ())
    train = BestFitWriter(partial, "train", dtype, separator_id, options.seq_len, size, shards, progress.best_fit)
    return {"train": train, "validation": stream("validation")}


def _save(partial: Path, key: str, writers: Writers, digest: "_Digest") -> None:
    """Close all shards and record the progress."""
    for writer in writers.values():
        writer.close_shard()
    train = writers["train"]
    progress = Progress(
        key=key,
        num_parts=digest.num_parts,
        parts_sha256=digest.hexdigest(),
        shards={name: tuple(writer.shards) for name, writer in writers.items()},
        best_fit=train.statistics() if isinstance(train, BestFitWriter) else None,
    )
    write_progress(partial, progress)


class _Digest:
    """Running hash of the documents and their splits."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.num_parts = 0

    def update(self, part: Part) -> None:
        content = part.document.text.encode()
        self._hash.update(f"{part.split} {len(content)} {part.document.id}\0".encode())
        self._hash.update(content)
        self.num_parts += 1

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _inputs_sha256(key: str, digest: _Digest) -> str:
    """Hash of everything that determines the content of the shards."""
    return hashlib.sha256(f"{key} {digest.hexdigest()}".encode()).hexdigest()
