"""Split a corpus into a training and a held-out part."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

from data_pipelines.corpus.documents import Document
from data_pipelines.packing.copies import Copies
from data_pipelines.packing.source import TextSource, read_text
from data_pipelines.skips import Skips, warn
from mythos.config.base import ConfigError, config

SplitName = Literal["train", "validation"]


@config
class HeldOutBytes:
    """Holds out the last ``num_bytes`` bytes of the documents' concatenation."""

    kind: Literal["bytes"] = "bytes"
    num_bytes: int


@config
class HeldOutFraction:
    """Holds out each document with this probability, by a hash of its id, independent of the other documents."""

    kind: Literal["fraction"] = "fraction"
    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ConfigError(
                f"--held-out-fraction is {self.fraction}, but it must be above 0 and below 1; for instance 0.01."
            )


HeldOut = Annotated[HeldOutBytes | HeldOutFraction, Field(discriminator="kind")]


_MOST_BYTES: Final = 500_000
_LEAST_BYTES: Final = 2_000
"""Smallest text of which a tenth can be held out by default: some windows of a small model."""


def text_bytes(source: TextSource | Path) -> int:
    """Return the UTF-8 bytes of all documents."""
    return sum(len(document.text.encode()) for document in read_text(source))


def default_held_out(source: TextSource | Path) -> HeldOutBytes:
    """Return the rule that holds out the last 500,000 bytes, or a tenth of a text of less than ten times that.

    Raises:
        ConfigError: the text cannot be read, or is too short.
    """
    total = text_bytes(source)
    if total < _LEAST_BYTES:
        raise ConfigError(
            f"{source} has {total:,} bytes of text, too few to hold out a tenth; give at least {_LEAST_BYTES:,}."
        )
    return HeldOutBytes(num_bytes=min(_MOST_BYTES, total // 10))


class Part(NamedTuple):
    """A document, or the part of it that belongs to one split."""

    split: SplitName
    document: Document


def split_documents(source: TextSource | Path, rule: HeldOut) -> Iterator[Part]:
    """Yield every document with its split, in order; reads one document at a time.

    At the end a warning names what was not read, and another the texts that both splits have.

    Raises:
        ConfigError: the text cannot be read, or one split would be empty.
    """
    skips, copies = Skips(), Copies()
    match rule:
        case HeldOutBytes():
            parts = split_by_bytes(lambda: read_text(source, skips), rule.num_bytes)
        case HeldOutFraction():
            parts = _split_by_id(read_text(source, skips), rule.fraction)
    for part in parts:
        copies.add(part.document.id, part.document.text, is_held_out=part.split == "validation")
        yield part
    for sentence in [*skips.sentences(), *copies.sentences()]:
        warn(sentence)


def split_by_bytes(read: Callable[[], Iterator[Document]], num_bytes: int) -> Iterator[Part]:
    """Hold out the last ``num_bytes`` bytes of the text, which is read twice.

    A document at the boundary is divided between both splits. The boundary moves back to the start of a UTF-8
    character, so up to three more bytes may be held out.
    """
    total = sum(len(document.text.encode()) for document in read())
    if not 0 < num_bytes < total:
        raise ConfigError(
            f"--held-out-bytes is {num_bytes}, but the text has {total} bytes; hold out at least 1 byte and "
            "leave some for training."
        )
    remaining = total - num_bytes
    is_first = True
    for document in read():
        content = document.text.encode()
        cut = min(remaining, len(content))
        remaining -= cut
        while 0 < cut < len(content) and _is_continuation(content[cut]):
            cut -= 1
        if is_first and cut == 0:
            raise ConfigError(
                f"--held-out-bytes is {num_bytes}, and that is all {total} bytes once no character is cut; "
                "hold out less."
            )
        is_first = False
        if cut:
            yield Part("train", document._replace(text=content[:cut].decode()))
        if cut < len(content):
            yield Part("validation", document._replace(text=content[cut:].decode()))


def _split_by_id(documents: Iterator[Document], fraction: float) -> Iterator[Part]:
    counts = {"train": 0, "validation": 0}
    for document in documents:
        digest = hashlib.blake2b(document.id.encode(), digest_size=8, person=b"held out").digest()
        split: SplitName = "validation" if int.from_bytes(digest, "big") < fraction * 2**64 else "train"
        counts[split] += 1
        yield Part(split, document)
    if not all(counts.values()):
        raise ConfigError(
            f"--held-out-fraction is {fraction}, which holds out {counts['validation']} of {sum(counts.values())} "
            "documents; choose another fraction, or --held-out-bytes, so that both splits get some."
        )


def _is_continuation(byte: int) -> bool:
    """Whether a byte is inside a UTF-8 character and does not open one."""
    return byte & 0b1100_0000 == 0b1000_0000
