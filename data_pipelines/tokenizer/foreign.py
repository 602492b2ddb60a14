"""Read other tokenizers for comparison: the file formats of GPT-2 and tiktoken."""

import base64
import binascii
import math
from itertools import pairwise
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from mythos.config.base import ConfigError
from mythos.data.manifest import TOKENIZER_FILE
from mythos.data.tokenizer import read_tokenizer

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS: Final = {
    "cl100k": "|".join(
        [
            _CONTRACTIONS,
            r"[^\r\n\p{L}\p{N}]?\p{L}+",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
    "o200k": "|".join(
        [
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?",
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
}
"""Patterns by which tiktoken's newer encodings split text before merging; GPT-2's is the library's default."""


def open_tokenizer(path: Path) -> Tokenizer:
    """Read a packed folder, a tokenizer.json, a .tiktoken file, or a folder with encoder.json and vocab.bpe.

    Raises:
        ConfigError: it is none of these.
    """
    if path.is_dir() and not (path / TOKENIZER_FILE).exists():
        return _gpt2(path)
    if path.suffix == ".tiktoken":
        return _tiktoken(path)
    return read_tokenizer(path / TOKENIZER_FILE if path.is_dir() else path)


def _gpt2(directory: Path) -> Tokenizer:
    for vocabulary, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if (directory / vocabulary).is_file() and (directory / merges).is_file():
            model = models.BPE.from_file(str(directory / vocabulary), str(directory / merges))
            tokenizer = Tokenizer(model)
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            return tokenizer
    raise ConfigError(f"{directory} holds neither {TOKENIZER_FILE} nor encoder.json with vocab.bpe; name a tokenizer.")


def _tiktoken(path: Path) -> Tokenizer:
    try:
        rows = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in rows}
    except (OSError, ValueError, binascii.Error):
        raise ConfigError(f"{path} is not a tiktoken file; its lines are a token in base64 and its rank.") from None
    printable = _printable_bytes()
    text = {token: "".join(printable[byte] for byte in token) for token in ranks}
    longer = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    merges = [(text[left], text[right]) for left, right in (split_token(token, ranks) for token in longer)]
    vocabulary = {text[token]: rank for token, rank in ranks.items()}
    # A pre-token in the vocabulary becomes that token, even if no sequence of merges produces it.
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer(path.name)
    return tokenizer


def split_token(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Find the two tokens whose merge gives ``token``, by merging its bytes in order of rank down to two parts."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, math.inf) for left, right in pairwise(parts)]
        index = min(range(len(pairs)), key=pairs.__getitem__)
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts[0], parts[1]


def _pre_tokenizer(name: str) -> PreTokenizer:
    for encoding, pattern in PATTERNS.items():
        if encoding in name:
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
            byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            return pre_tokenizers.Sequence([split, byte_level])
    if any(encoding in name for encoding in ("gpt2", "r50k", "p50k")):
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    known = ", ".join(["gpt2", "r50k", "p50k", *PATTERNS])
    raise ConfigError(f"{name}: the file's name must state the encoding, but it has none of {known}.")


def _printable_bytes() -> list[str]:
    """Printable character that represents each byte in a byte-level vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = iter(range(256))
    return [chr(byte if byte in printable else 256 + next(others)) for byte in range(256)]
