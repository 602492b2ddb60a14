"""Load the tokenizer of a packed dataset, and decode its tokens to text."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from mythos.config.base import ConfigError
from mythos.data.kept import kept_data
from mythos.data.manifest import SEPARATOR, TOKENIZER_FILE, data_fingerprint, read_common_manifest, read_manifest
from mythos.data.shards import open_split
from mythos.data.text import encodable
from mythos.files import sha256 as file_sha256


def load_tokenizer(directory: Path) -> Tokenizer:
    """Load the tokenizer that packed ``directory``.

    Raises:
        ConfigError: the dataset is missing or damaged, or its tokenizer is not the one that packed the shards.
    """
    manifest = read_manifest(directory)
    path = directory / TOKENIZER_FILE
    if not path.is_file() or (actual := file_sha256(path)) != manifest.tokenizer_sha256:
        problem = f"has SHA-256 {actual[:12]}" if path.is_file() else "is missing"
        raise ConfigError(
            f"{path} {problem}, but the shards were packed with {manifest.tokenizer_sha256[:12]}; restore it, "
            f"or pack again with mythos-data pack --overwrite --to {directory}."
        )
    return read_tokenizer(path)


def tokenizer_of_run(run: Path, directories: Sequence[str], fingerprint: str) -> tuple[Tokenizer, int]:
    """Load a run's tokenizer, and return it with the id of the document separator.

    Args:
        directories: folders of the run's packed datasets; read only for runs that have kept no tokenizer.
        fingerprint: fingerprint of these datasets in the run's checkpoint.

    Raises:
        ConfigError: the tokenizer is damaged; or the run has kept none, and the datasets are missing or others.
    """
    if (kept := kept_data(run, fingerprint)) is not None:
        return read_tokenizer(run / TOKENIZER_FILE), kept.separator_id
    manifest = read_common_manifest(directories)
    if (actual := data_fingerprint(directories)) != fingerprint:
        raise ConfigError(
            f"{', '.join(directories)}: packed again since the run was trained (fingerprint {actual}, trained on "
            f"{fingerprint}), so its tokenizer may be another one; restore the data set of the run."
        )
    return load_tokenizer(Path(directories[0])), manifest.separator_id


def open_documents(tokenizer: Tokenizer, separator_id: int) -> Tokenizer:
    """Let the tokenizer open each text that it encodes with the separator, as in training; returns the tokenizer."""
    name = tokenizer.id_to_token(separator_id)
    single = [name, "$A"]
    special_tokens = [(name, separator_id)]
    tokenizer.post_processor = TemplateProcessing(single, [*single, name, "$B"], special_tokens=special_tokens)
    return tokenizer


def separator_id_of(tokenizer: Tokenizer, path: Path, separator: str = SEPARATOR) -> int:
    """Return the id of the separator; ``path`` names the tokenizer in the error.

    Raises:
        ConfigError: the tokenizer has no such token.
    """
    separator_id: int | None = tokenizer.token_to_id(encodable(separator))
    if separator_id is None:
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        names = f"one of its special tokens ({', '.join(special[:8])})" if special else "one of its tokens"
        raise ConfigError(
            f"{path} has no token {encodable(separator)}; name {names} with --separator, or train another with "
            "mythos-data tokenizer."
        )
    return separator_id


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode a text from outside, such as an argument; a lone surrogate in it counts as U+FFFD."""
    return tokenizer.encode(encodable(text)).ids


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file; it encodes special tokens that are spelt out in a text as ordinary text.

    Raises:
        ConfigError: the file is missing or is not a tokenizer.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; train it with mythos-data tokenizer --to {path.parent}.")
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))  # from_file opens no path that is not UTF-8
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"{path} is not a tokenizer ({error}); train it again with mythos-data tokenizer.") from None
    tokenizer.encode_special_tokens = True
    # Settings of another model's tokenizer, which would cut or pad documents.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def text_of(directory: Path, split: str) -> bytes:
    """Decode a split to its exact UTF-8 source text, without separators.

    Raises:
        ConfigError: the dataset is damaged, or its documents were fitted into windows, which does not keep their order.
    """
    if read_manifest(directory).splits[split].best_fit:
        raise ConfigError(
            f"{directory}: the documents of the split {split!r} were fitted into windows and have lost their order; "
            "read a split that was packed as a stream."
        )
    tokenizer = load_tokenizer(directory)
    documents = _documents(directory, split)
    return "".join(tokenizer.decode(tokens, skip_special_tokens=False) for tokens in documents).encode()


def _documents(directory: Path, split: str) -> Iterator[list[int]]:
    """Yield the tokens of each document without its separator, joined across shards."""
    document: list[int] = []
    for shard in open_split(directory, split):
        begin = 1 if shard.continues else 0
        for start in shard.document_starts.tolist():
            document += shard.tokens_N[begin:start].tolist()
            if document:
                yield document[1:]
            document, begin = [], start
        document += shard.tokens_N[begin:].tolist()
    if document:
        yield document[1:]
