"""What a packed directory says about itself, in ``manifest.json``."""

import json
from pathlib import Path
from typing import Final, Literal

from mythos.config.base import ConfigError, Count, PositiveInt, config, decode, encode
from mythos.files import write_text

VERSION: Final = 1
FILE_NAME: Final = "manifest.json"
TOKENIZER_FILE: Final = "tokenizer.json"
SEPARATOR: Final = "<|endoftext|>"
"""The special token that opens every document."""
TokenType = Literal["uint16", "uint32"]


@config
class Shard:
    """One file of tokens, and the index of its documents."""

    tokens_file: str
    """Little-endian token ids and nothing else."""
    tokens_sha256: str
    documents_file: str
    """Little-endian int64: where each document starts, in tokens; the first is 0."""
    documents_sha256: str
    num_tokens: PositiveInt
    """Text tokens and one separator for each document."""
    num_documents: PositiveInt
    num_bytes: Count
    """UTF-8 bytes of the source text; separators count nothing."""


@config
class Split:
    """Shards in reading order; no document crosses from one to the next."""

    shards: tuple[Shard, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens in all shards, separators included."""
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Documents in all shards."""
        return sum(shard.num_documents for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text behind all shards."""
        return sum(shard.num_bytes for shard in self.shards)


@config
class Manifest:
    """A packed dataset: ``train`` and ``validation`` splits and the tokenizer that made them."""

    version: Literal[1] = VERSION
    dtype: TokenType
    vocab_size: PositiveInt
    separator_id: Count
    tokenizer_sha256: str
    inputs_sha256: str
    """Changes when the text, the tokenizer or the way of cutting changes."""
    splits: dict[str, Split]


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``; a directory without one is not a dataset, so this comes last."""
    write_text(directory / FILE_NAME, json.dumps(encode(manifest), indent=2) + "\n")


def read_manifest(directory: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        ConfigError: the directory is missing, was never packed, is damaged, or was packed by a newer version.
    """
    path = directory / FILE_NAME
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such folder; make it with mythos-data pack --to {directory}.")
    if not path.is_file():
        raise ConfigError(
            f"{directory} holds no {FILE_NAME}, so no packed tokens; run mythos-data pack --to {directory}."
        )
    try:
        raw = json.loads(path.read_bytes())
        version = int(raw["version"])
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "it is not a JSON object with a version") from None
    if version > VERSION:
        raise ConfigError(
            f"{path} has format version {version}, but this Mythos reads up to {VERSION}; "
            "update Mythos, or pack the text again."
        )
    try:
        return decode(Manifest, raw)
    except ConfigError as error:
        raise _damaged(path, str(error).splitlines()[0].rstrip(".")) from None


def _damaged(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged ({what}); write it again with mythos-data pack --overwrite --to {path.parent}."
    )
