"""Texts to token ids, on several processes and in order."""

import multiprocessing
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from tokenizers import Tokenizer

from mythos.config.base import ConfigError
from mythos.data.tokenizer import read_tokenizer

T = TypeVar("T")

PORTION_NUM_CHARS: Final = 2**18
"""Text that a process is handed at a time."""
PIECE_NUM_CHARS: Final = 2**13
"""Text that is encoded at a time: the library's speed and memory suffer from long texts."""
_LINE_END = re.compile(r"\n(?=\S)")


def tokenize(
    items: Iterable[T], text_of: Callable[[T], str], tokenizer_path: Path, num_workers: int
) -> Iterator[tuple[T, np.ndarray]]:
    """Each item with the ids (uint32) of its text, in order; one process reads on while others encode.

    A few portions of text are in memory at a time, and the longest text.

    Raises:
        ConfigError: a process died.
    """
    with _encoder(num_workers) as encode:
        pending: deque[tuple[list[T], Future[list[np.ndarray]]]] = deque()
        for portion in _portions(items, text_of):
            pending.append((portion, encode(tokenizer_path, [text_of(item) for item in portion])))
            if len(pending) > 2 * num_workers:
                yield from _results(*pending.popleft())
        while pending:
            yield from _results(*pending.popleft())


@contextmanager
def _encoder(num_workers: int) -> Iterator[Callable[[Path, list[str]], "Future[list[np.ndarray]]"]]:
    """A way to start encoding texts: here when there is one worker, else in processes of their own."""
    if num_workers == 1:
        yield _encode_here
        return
    # A fresh process per worker: the library's threads do not survive a fork.
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"))
    try:
        yield lambda path, texts: pool.submit(encode_texts, path, texts)
    finally:
        pool.shutdown(cancel_futures=True)


def _encode_here(tokenizer_path: Path, texts: list[str]) -> "Future[list[np.ndarray]]":
    done: Future[list[np.ndarray]] = Future()
    done.set_result(encode_texts(tokenizer_path, texts))
    return done


def encode_texts(tokenizer_path: Path, texts: list[str]) -> list[np.ndarray]:
    """Ids of each text, uint32."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = _tokenizer(tokenizer_path, tokenizer_path.stat().st_mtime_ns)
    pieces = [list(cut(text)) for text in texts]
    encodings = iter(
        tokenizer.encode_batch_fast([piece for part in pieces for piece in part], add_special_tokens=False)
    )
    return [
        np.concatenate([np.array(next(encodings).ids, np.uint32) for _ in part] or [np.empty(0, np.uint32)])
        for part in pieces
    ]


def cut(text: str) -> Iterator[str]:
    """The text in pieces; cut only where a line ends and no blank follows, which no token of ours crosses."""
    begin = 0
    while found := _LINE_END.search(text, begin + PIECE_NUM_CHARS):
        yield text[begin : found.end()]
        begin = found.end()
    if begin < len(text):
        yield text[begin:]


@cache
def _tokenizer(path: Path, modified_ns: int) -> Tokenizer:
    """Read once for each state of the file."""
    return read_tokenizer(path)


def _portions(items: Iterable[T], text_of: Callable[[T], str]) -> Iterator[list[T]]:
    portion: list[T] = []
    num_chars = 0
    for item in items:
        portion.append(item)
        num_chars += len(text_of(item))
        if num_chars >= PORTION_NUM_CHARS:
            yield portion
            portion, num_chars = [], 0
    if portion:
        yield portion


def _results(portion: list[T], encoded: "Future[list[np.ndarray]]") -> Iterator[tuple[T, np.ndarray]]:
    try:
        yield from zip(portion, encoded.result(), strict=True)
    except BrokenProcessPool:
        raise ConfigError(
            "a tokenising process died, most likely for want of memory; run the same command again with fewer "
            "--workers, and it goes on where it was."
        ) from None
