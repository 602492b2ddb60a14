"""The tokenizer of a packed dataset, and the way back from tokens to text."""

from pathlib import Path

from tokenizers import Tokenizer

from mythos.config.base import ConfigError
from mythos.data.manifest import TOKENIZER_FILE, read_manifest
from mythos.data.shards import open_split
from mythos.files import sha256 as file_sha256


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer that packed ``directory``.

    Raises:
        ConfigError: the dataset is missing or damaged, or its tokenizer is another one than the shards'.
    """
    manifest = read_manifest(directory)
    path = directory / TOKENIZER_FILE
    if not path.is_file() or (found := file_sha256(path)) != manifest.tokenizer_sha256:
        given = f"has SHA-256 {found[:12]}" if path.is_file() else "is missing"
        raise ConfigError(
            f"{path} {given}, but the shards were packed with {manifest.tokenizer_sha256[:12]}; restore it, "
            f"or pack again with mythos-data pack --overwrite --to {directory}."
        )
    return read_tokenizer(path)


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file; special tokens spelt out in a text are then encoded as ordinary text.

    Raises:
        ConfigError: the file is missing or is not a tokenizer.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; train it with mythos-data tokenizer --to {path.parent}.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(
            f"{path} is not a tokenizer ({error}); train it again with mythos-data tokenizer."
        ) from None
    tokenizer.encode_special_tokens = True
    return tokenizer


def text_of(directory: Path, split: str) -> bytes:
    """The UTF-8 text behind a split, byte for byte; separators are left out."""
    tokenizer = load_tokenizer(directory)
    texts = []
    for tokens_N, document_starts in open_split(directory, split):
        ends = [*document_starts[1:].tolist(), len(tokens_N)]
        for start, end in zip(document_starts.tolist(), ends, strict=True):
            texts.append(tokenizer.decode(tokens_N[start + 1 : end].tolist(), skip_special_tokens=False))
    return "".join(texts).encode()
