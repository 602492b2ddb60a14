"""Measure how well tokenizers compress text: bytes and words per token, by source."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_pipelines.packing.source import TextSource, read_text
from data_pipelines.skips import Skips, warn
from data_pipelines.tokenizer.foreign import open_tokenizer
from data_pipelines.tokenizer.pieces import cut


class Measure(NamedTuple):
    """Totals of one source under one tokenizer."""

    source: str
    tokenizer: str
    num_bytes: int
    num_words: int
    """Number of words separated by whitespace."""
    num_tokens: int


def measure(text: TextSource | Path, tokenizers: Iterable[Path]) -> list[Measure]:
    """Encode every document with each tokenizer; return one row per source and tokenizer, in order of appearance.

    Raises:
        ConfigError: the text or a tokenizer cannot be read.
    """
    opened = {str(path): open_tokenizer(path) for path in tokenizers}
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    num_tokens: dict[tuple[str, str], int] = defaultdict(int)
    skips = Skips()
    for document in tqdm(read_text(text, skips), desc="measuring", unit="document", disable=None):
        sizes[document.source][0] += len(document.text.encode())
        sizes[document.source][1] += len(document.text.split())
        pieces = list(cut(document.text))
        for name, tokenizer in opened.items():
            encodings = tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
            num_tokens[document.source, name] += sum(len(encoding.ids) for encoding in encodings)
    for sentence in skips.sentences():
        warn(sentence)
    return [
        Measure(source, name, size[0], size[1], num_tokens[source, name])
        for source, size in sizes.items()
        for name in opened
    ]


def table(rows: list[Measure]) -> str:
    """Format the rows as a text table."""
    source_width = max(len("source"), *(len(row.source) for row in rows))
    name_width = max(len("tokenizer"), *(len(row.tokenizer) for row in rows))
    lines = [f"{'source':<{source_width}}  {'tokenizer':<{name_width}}  {'tokens':>14}  bytes/token  words/token"]
    lines += [
        f"{row.source:<{source_width}}  {row.tokenizer:<{name_width}}  {row.num_tokens:>14,}  "
        f"{row.num_bytes / max(1, row.num_tokens):>11.3f}  {row.num_words / max(1, row.num_tokens):>11.3f}"
        for row in rows
    ]
    return "\n".join(lines)
