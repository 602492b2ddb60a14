"""Training a byte-level BPE tokenizer (Sennrich et al. 2016, arXiv 1508.07909, over bytes)."""

import sys
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_pipelines.corpus.folder import Document, read_folder
from data_pipelines.corpus.held_out import split_held_out
from mythos.config.base import ConfigError
from mythos.data.manifest import SEPARATOR, TOKENIZER_FILE
from mythos.files import write_text

WORD_PATTERN: Final = "|".join(
    [
        r"(?i:'(?:[sdmt]|ll|ve|re))",  # English contractions
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # a word with the blank or sign before it
        r"\p{N}{1,3}",  # digits in groups of three at most
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # signs
        r"\s*[\r\n]+",  # line ends
        r"\s+(?!\S)|\s+",  # blanks; the last one stays with its word
    ]
)
"""How text is cut before merging; no merge crosses a cut."""

MIN_VOCAB_SIZE: Final = 257
"""All bytes and the separator."""


def train_tokenizer(documents: list[Document], vocab_size: int) -> Tokenizer:
    """Learn merges until the vocabulary has ``vocab_size`` entries; the same text gives the same tokenizer.

    Raises:
        ConfigError: the vocabulary is too small for all bytes, or larger than the text can fill.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ConfigError(
            f"--vocab-size is {vocab_size}, but 256 bytes and the separator need {MIN_VOCAB_SIZE}; raise it."
        )
    tokenizer = Tokenizer(models.BPE())
    cut_words = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    spell_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut_words, spell_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    if (filled := tokenizer.get_vocab_size()) < vocab_size:
        raise ConfigError(
            f"--vocab-size is {vocab_size}, but the training text fills only {filled}; lower it to "
            f"{filled} or give more text."
        )
    return tokenizer


def write_tokenizer(
    text_directory: Path, directory: Path, vocab_size: int, held_out_bytes: int, overwrite: bool
) -> None:
    """Train on the training part of a folder and write ``directory/tokenizer.json``.

    Raises:
        ConfigError: the text or the sizes are unusable, or another tokenizer is there and may not go.
    """
    training, _ = split_held_out(read_folder(text_directory), held_out_bytes)
    content = train_tokenizer(training, vocab_size).to_str(pretty=True) + "\n"
    path = directory / TOKENIZER_FILE
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is another tokenizer; give --overwrite to replace it, or another --to.")
    write_text(path, content)
