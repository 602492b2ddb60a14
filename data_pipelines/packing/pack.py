"""Tokenising a folder of text into a packed dataset."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer
from tqdm import tqdm

from data_pipelines.corpus.folder import Document, read_folder
from data_pipelines.corpus.held_out import split_held_out
from mythos.config.base import ConfigError
from mythos.data.manifest import (
    FILE_NAME,
    SEPARATOR,
    TOKENIZER_FILE,
    VERSION,
    Manifest,
    Split,
    TokenType,
    read_manifest,
    write_manifest,
)
from mythos.data.shards import SplitWriter
from mythos.data.tokenizer import read_tokenizer
from mythos.files import remove, sha256

SHARD_NUM_TOKENS: Final = 2**27
"""A shard is closed at the first document end past this many tokens: 256 MiB of uint16."""
_DOCUMENTS_AT_ONCE = 16


def pack(
    text_directory: Path,
    directory: Path,
    held_out_bytes: int,
    overwrite: bool = False,
    shard_num_tokens: int = SHARD_NUM_TOKENS,
) -> Manifest:
    """Write the shards and the manifest beside ``directory/tokenizer.json``.

    Everything is written into a hidden folder inside ``directory``, then renamed file by file, the manifest
    last; only a directory with a manifest is a dataset. Does nothing when the same inputs are packed already.

    Raises:
        ConfigError: text, tokenizer or sizes are unusable, or another dataset is there and may not go.
    """
    tokenizer = read_tokenizer(directory / TOKENIZER_FILE)
    separator_id = tokenizer.token_to_id(SEPARATOR)
    if separator_id is None:
        raise ConfigError(
            f"{directory / TOKENIZER_FILE} has no token {SEPARATOR}; train one with mythos-data tokenizer."
        )
    documents = read_folder(text_directory)
    training, held_out = split_held_out(documents, held_out_bytes)
    tokenizer_sha256 = sha256(directory / TOKENIZER_FILE)
    inputs_sha256 = _fingerprint(documents, tokenizer_sha256, held_out_bytes, shard_num_tokens)
    if (directory / FILE_NAME).exists() and not overwrite:
        present = read_manifest(directory)
        if present.inputs_sha256 == inputs_sha256:
            return present
        raise ConfigError(f"{directory} holds another dataset; give --overwrite to replace it, or another --to.")
    vocab_size = tokenizer.get_vocab_size()
    dtype: TokenType = "uint16" if vocab_size <= 2**16 else "uint32"
    partial = directory / ".packing"
    remove(partial)
    partial.mkdir()
    try:
        splits = {}
        for name, part in (("train", training), ("validation", held_out)):
            writer = SplitWriter(partial, name, dtype, separator_id, shard_num_tokens)
            splits[name] = _write_split(writer, tokenizer, part, name)
        manifest = Manifest(
            dtype=dtype,
            vocab_size=vocab_size,
            separator_id=separator_id,
            tokenizer_sha256=tokenizer_sha256,
            inputs_sha256=inputs_sha256,
            splits=splits,
        )
        _publish(partial, directory, manifest)
    finally:
        remove(partial)
    return manifest


def _write_split(writer: SplitWriter, tokenizer: Tokenizer, documents: list[Document], name: str) -> Split:
    """Tokenise a few documents at a time, on all cores, and append them."""
    num_bytes = sum(len(document.text.encode()) for document in documents)
    with tqdm(total=num_bytes, desc=f"packing {name}", unit="B", unit_scale=True, disable=None) as progress:
        for texts in _portions(document.text for document in documents):
            encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
            for text, encoding in zip(texts, encodings, strict=True):
                writer.add(encoding.ids, len(text.encode()))
                progress.update(len(text.encode()))
    return writer.finish()


def _portions(texts: Iterator[str]) -> Iterator[list[str]]:
    while portion := list(islice(texts, _DOCUMENTS_AT_ONCE)):
        yield portion


def _publish(partial: Path, directory: Path, manifest: Manifest) -> None:
    """Rename the shards into place between taking the old manifest away and writing the new one."""
    (directory / FILE_NAME).unlink(missing_ok=True)
    for split in manifest.splits:
        for kind in ("tokens", "documents"):
            for stale in directory.glob(f"{split}-[0-9][0-9][0-9][0-9][0-9].{kind}"):
                stale.unlink()
    for path in partial.iterdir():
        path.replace(directory / path.name)
    write_manifest(directory, manifest)


def _fingerprint(documents: list[Document], tokenizer_sha256: str, held_out_bytes: int, shard_num_tokens: int) -> str:
    """Everything that decides what the shards hold."""
    texts = [[name, hashlib.sha256(text.encode()).hexdigest()] for name, text in documents]
    inputs = [VERSION, texts, tokenizer_sha256, held_out_bytes, shard_num_tokens]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
