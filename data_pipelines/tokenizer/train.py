"""Train a byte-level BPE tokenizer (Sennrich et al. 2016, arXiv 1508.07909, over bytes)."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_pipelines.lock import locked
from data_pipelines.packing.held_out import HeldOut, split_documents, text_bytes
from data_pipelines.packing.source import TextSource
from data_pipelines.skips import warn
from data_pipelines.tokenizer.long_runs import MOST_CHARS, cut_long
from data_pipelines.tokenizer.pieces import cut
from mythos.config.base import ConfigError, config
from mythos.data.manifest import SEPARATOR, TOKENIZER_FILE
from mythos.data.text import encodable
from mythos.files import write_text

_WORDS = (
    r"(?i:'(?:[sdmt]|ll|ve|re))",  # English contractions
    r"[^\r\n\p{L}\p{N}]?\p{L}+",  # a word with one preceding space or sign
)
_REST = (
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # signs
    r"\s*[\r\n]+",  # line ends
    r"\s+(?!\S)|\s+",  # whitespace; the last one stays with the next word
)
DIGIT_GROUPS: Final = r"\p{N}{1,3}"
SINGLE_DIGITS: Final = r"\p{N}"
_SIZES: Final = (
    *((0, 512), (250_000, 1024), (10**6, 2048), (16 * 10**6, 4096)),
    *((64 * 10**6, 8192), (256 * 10**6, 16384), (10**9, 32768)),
)
"""Least bytes of text and size of the vocabulary, ascending."""


@config
class TokenizerOptions:
    """Options of a tokenizer."""

    vocab_size: int | None = None
    """None for one by the size of the training text, and no more than it fills."""
    split_digits: bool = False
    """Make every digit a token; otherwise up to three digits may form one token."""
    special_tokens: tuple[str, ...] = ()
    """Vocabulary entries after the separator, to which no text is ever encoded."""

    def __post_init__(self) -> None:
        names = (SEPARATOR, *self.special_tokens)
        if len(set(names)) < len(names) or not all(names) or any(name != encodable(name) for name in names):
            raise ConfigError(
                f"--special-tokens is {', '.join(map(repr, self.special_tokens))}; give names that are not empty, "
                f"are UTF-8, and differ from each other and from {SEPARATOR}."
            )
        if self.vocab_size is not None and self.vocab_size < (least := 256 + len(names)):
            what = "the separator" if len(names) == 1 else f"{len(names)} special tokens"
            raise ConfigError(
                f"the vocabulary is to have {self.vocab_size} entries, but 256 bytes and {what} need {least}; raise it."
            )

    @property
    def pattern(self) -> str:
        """Regular expression that splits text before merging; no merge crosses a split."""
        return "|".join([*_WORDS, SINGLE_DIGITS if self.split_digits else DIGIT_GROUPS, *_REST])


def default_vocab_size(num_bytes: int) -> int:
    """Return the entries of a vocabulary for a text of this size: 2048 from 1 MB, 32768 from 1 GB."""
    return next(size for least, size in reversed(_SIZES) if num_bytes >= least)


def pre_tokenizer(options: TokenizerOptions) -> pre_tokenizers.PreTokenizer:
    """Return what splits a text into the parts in which bytes are merged."""
    split = pre_tokenizers.Split(Regex(options.pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train_tokenizer(
    texts: Iterable[str],
    options: TokenizerOptions,
    report: Callable[[int], None] = lambda num_chars: None,
    most_entries: int = _SIZES[-1][1],
) -> Tokenizer:
    """Learn merges until the vocabulary is full; the same text gives the same tokenizer.

    A run of more than ``MOST_CHARS`` characters that the pattern does not split is trained on in parts, since the time
    is quadratic in its length; the tokenizer itself encodes such runs whole.

    Args:
        report: called with the length of each such run, while its text is the last one taken from ``texts``.
        most_entries: of the vocabulary where ``options`` leave its size open.

    Raises:
        ConfigError: the text has too few pairs to fill the vocabulary of ``options``.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(options.pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizer(options)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size or most_entries,
        min_frequency=2,
        special_tokens=[SEPARATOR, *options.special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=sys.stderr.isatty(),
    )
    # The library holds 256 parts at a time, so they are short.
    parts = (piece for text in texts for part in cut_long(text, split, report) for piece in cut(part))
    tokenizer.train_from_iterator(parts, trainer)
    if options.vocab_size is not None and (filled := tokenizer.get_vocab_size()) < options.vocab_size:
        raise ConfigError(
            f"the vocabulary is to have {options.vocab_size} entries, but the training text fills only {filled}; lower "
            f"it to {filled} or give more text."
        )
    return tokenizer


def write_tokenizer(
    text: TextSource | Path, directory: Path, options: TokenizerOptions, held_out: HeldOut, overwrite: bool
) -> int:
    """Train on the training part of a text, write ``directory/tokenizer.json``, and return its number of entries.

    Raises:
        ConfigError: the text or the sizes are unusable, another run is at work in ``directory``, or another tokenizer
            is there and ``overwrite`` is false.
    """
    long_runs: dict[str, int] = {}
    name = ""

    def texts() -> Iterator[str]:
        nonlocal name
        for part in split_documents(text, held_out):
            if part.split == "train":
                name = part.document.id
                yield part.document.text

    def report(num_chars: int) -> None:
        long_runs[name] = max(num_chars, long_runs.get(name, 0))

    most_entries = options.vocab_size or default_vocab_size(text_bytes(text))
    tokenizer = train_tokenizer(texts(), options, report, most_entries)
    content, num_entries = tokenizer.to_str(pretty=True) + "\n", tokenizer.get_vocab_size()
    if long_runs:
        warn(_about(long_runs))
    path = directory / TOKENIZER_FILE
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return num_entries
    with locked(directory):
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} is another tokenizer; give --overwrite to replace it, or another --to.")
        write_text(path, content)
    return num_entries


def _about(long_runs: dict[str, int]) -> str:
    """Warning that names the texts whose longest runs have these lengths, the longest first."""
    names = sorted(long_runs, key=long_runs.__getitem__, reverse=True)
    first = ", ".join(f"{name} ({long_runs[name]:,})" for name in names[:5])
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return (
        f"{len(names):,} texts hold runs of more than {MOST_CHARS:,} characters without a break, which were trained on "
        f"in parts; check whether they are text, by their longest runs: {first}{more}."
    )
