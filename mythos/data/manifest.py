"""The manifest of a packed directory, ``manifest.json``."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from mythos.config.base import ConfigError, Count, PositiveInt, config, decode, encode
from mythos.files import resolves_below, sha256, write_text

VERSION: Final = 2
FILE_NAME: Final = "manifest.json"
TOKENIZER_FILE: Final = "tokenizer.json"
CHAT_TEMPLATE_FILE: Final = "chat_template.jinja"
"""Layout of conversations, beside a tokenizer that came with one."""
SEPARATOR: Final = "<|endoftext|>"
"""The special token that opens every document, unless another tokenizer's is named."""
_VOCABULARY_PADDING: Final = 128
TokenType = Literal["uint16", "uint32"]


@config
class Shard:
    """One file of tokens and its index files."""

    tokens_file: str
    """File of little-endian token ids, without a header."""
    tokens_sha256: str
    documents_file: str
    """File of little-endian int64: offset of each document's start, in tokens."""
    documents_sha256: str
    ignored_file: str | None = None
    """File of little-endian int64: the spans of tokens that are not targets; null when all tokens are targets."""
    ignored_sha256: str | None = None
    num_ignored_spans: Count = 0
    num_tokens: PositiveInt
    """Tokens in the file: text, separators, padding."""
    num_documents: Count
    """Entries of the document index."""
    num_bytes: Count
    """UTF-8 bytes of the source text; separators are not counted."""
    continues: bool = False
    """Whether the shard continues the last document of the previous one and repeats its last token first."""


@config
class BestFit:
    """How documents were fitted into windows of ``seq_len`` inputs, each stored as ``seq_len + 1`` tokens."""

    seq_len: PositiveInt
    num_windows: PositiveInt
    num_documents: PositiveInt
    num_cropped_documents: Count
    """Documents longer than a window, cut into several pieces."""
    num_pieces: PositiveInt
    num_padding_tokens: Count
    """Number of padding inputs."""

    @property
    def utilisation(self) -> float:
        """Share of the inputs that are not padding."""
        return 1 - self.num_padding_tokens / (self.num_windows * self.seq_len)


@config
class Split:
    """Shards in reading order."""

    shards: tuple[Shard, ...]
    best_fit: BestFit | None = None
    """Null when the documents form one stream, which windows may cut at any token."""
    examples_file: str | None = None
    """JSON lines file of a task's problems, for scoring."""
    examples_sha256: str | None = None

    @property
    def files(self) -> list[str]:
        """Names of all files of the split."""
        shards = [(shard.tokens_file, shard.documents_file, shard.ignored_file) for shard in self.shards]
        named = [*(name for names in shards for name in names), self.examples_file]
        return [name for name in named if name is not None]

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all shards, separators included."""
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Number of documents in all shards."""
        return self.best_fit.num_documents if self.best_fit else sum(shard.num_documents for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the source text of all shards."""
        return sum(shard.num_bytes for shard in self.shards)


@config
class Manifest:
    """A packed dataset: ``train`` and ``validation`` splits and the tokenizer that encoded them."""

    version: Literal[1, 2] = VERSION
    dtype: TokenType
    vocab_size: PositiveInt
    separator_id: Count
    tokenizer_sha256: str
    inputs_sha256: str
    """Hash that changes when the text, the tokenizer or the packing options change."""
    splits: dict[str, Split]


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``; a directory without one is not a dataset, so this comes last."""
    write_text(directory / FILE_NAME, json.dumps(encode(manifest), indent=2) + "\n")


def read_manifest(directory: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        ConfigError: the directory is missing, was never packed, is damaged, was packed by a newer version, or its
            manifest names files outside it.
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
        manifest = decode(Manifest, raw)
    except ConfigError as error:
        raise _damaged(path, str(error).splitlines()[0].rstrip(".")) from None
    for name in (name for split in manifest.splits.values() for name in split.files):
        if not resolves_below(directory, name):
            raise ConfigError(f"{path}: names the file {name!r}, which does not lie in {directory}; copy it there.")
    return manifest


def read_common_manifest(directories: Sequence[str]) -> Manifest:
    """Read all manifests, check that they share one tokenizer, and return the first.

    Raises:
        ConfigError: a dataset is missing or damaged, or was packed with another tokenizer.
    """
    first, *others = [read_manifest(Path(directory)) for directory in directories]
    for directory, other in zip(directories[1:], others, strict=True):
        if other.tokenizer_sha256 != first.tokenizer_sha256:
            raise ConfigError(
                f"data.sources: {directory} was packed by the tokenizer {other.tokenizer_sha256[:12]}, but "
                f"{directories[0]} by {first.tokenizer_sha256[:12]}; pack it again with that tokenizer.json in it."
            )
    return first


def check_vocabulary(directories: Sequence[str], vocab_size: int) -> None:
    """Check a model's vocabulary size against the tokenizer of the datasets; it may be rounded up by less than 128.

    Raises:
        ConfigError: the sizes differ, or ``read_common_manifest`` failed.
    """
    num_tokens = read_common_manifest(directories).vocab_size
    if not num_tokens <= vocab_size < num_tokens + _VOCABULARY_PADDING:
        raise ConfigError(
            f"model.vocab_size is {vocab_size} but the tokenizer of {directories[0]} has {num_tokens} tokens; "
            f"set model.vocab_size={num_tokens}, or round it up by less than {_VOCABULARY_PADDING}."
        )


def validation_bytes_per_token(directories: Sequence[str], weights: Sequence[int]) -> float | None:
    """UTF-8 bytes of text per token of the held-out splits, mixed by weight; None for tasks and empty texts.

    The validation batches of a run may be only the first ones of these splits.

    Raises:
        ConfigError: a dataset is missing or damaged.
    """
    total = 0.0
    used = [(directory, weight) for directory, weight in zip(directories, weights, strict=True) if weight]
    for directory, weight in used:
        split = read_manifest(Path(directory)).splits.get("validation")
        if split is None or split.examples_file is not None or not split.num_bytes:
            return None
        total += weight * split.num_bytes / split.num_tokens
    return total / sum(weights)


def data_fingerprint(directories: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that change when any of the datasets or their order changes."""
    digests = [sha256(Path(directory) / FILE_NAME) for directory in directories]
    return (digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest())[:16]


def _damaged(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged ({what}); write it again with mythos-data pack --overwrite --to {path.parent}."
    )
