"""Encode texts to token ids in several processes, in order."""

import multiprocessing
import os
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

from data_pipelines.tokenizer.pieces import cut
from data_pipelines.tokenizer.train import TokenizerOptions, pre_tokenizer
from data_pipelines.workers import exit_with_parent
from mythos.config.base import ConfigError
from mythos.data.tokenizer import read_tokenizer

T = TypeVar("T")

_OPTIONS: Final = (TokenizerOptions(), TokenizerOptions(split_digits=True))

PORTION_NUM_CHARS: Final = 2**18
"""Characters of text that a process receives at a time."""


def tokenize(
    items: Iterable[T], text_of: Callable[[T], str], tokenizer_path: Path, num_workers: int
) -> Iterator[tuple[T, np.ndarray]]:
    """Yield each item with the ids (uint32) of its text, in order; this process reads while others encode.

    Memory holds a few portions of text at a time, and the longest text.

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
    """Yield a function that starts encoding texts, in this process for one worker, else in separate processes."""
    if num_workers == 1:
        yield _encode_here
        return
    # Workers are spawned, since the library's threads do not survive a fork.
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=exit_with_parent)
    try:
        yield lambda path, texts: pool.submit(encode_texts, path, texts)
    finally:
        pool.shutdown(cancel_futures=True)


def _encode_here(tokenizer_path: Path, texts: list[str]) -> "Future[list[np.ndarray]]":
    done: Future[list[np.ndarray]] = Future()
    done.set_result(encode_texts(tokenizer_path, texts))
    return done


def encode_texts(tokenizer_path: Path, texts: list[str]) -> list[np.ndarray]:
    """Token ids of each text, uint32."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = _tokenizer(tokenizer_path, tokenizer_path.stat().st_mtime_ns)
    # How another tokenizer splits text is not known, so it is given whole documents.
    pieces = [list(cut(text)) for text in texts] if _is_ours(tokenizer) else [[text] for text in texts]
    encodings = iter(
        tokenizer.encode_batch_fast([piece for part in pieces for piece in part], add_special_tokens=False)
    )
    return [
        np.concatenate([np.array(next(encodings).ids, np.uint32) for _ in part] or [np.empty(0, np.uint32)])
        for part in pieces
    ]


def _is_ours(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer splits text as one of ``mythos-data tokenizer``, so that no token crosses a cut."""
    if tokenizer.normalizer is not None or tokenizer.pre_tokenizer is None:
        return False
    state = tokenizer.pre_tokenizer.__getstate__()
    return any(state == pre_tokenizer(options).__getstate__() for options in _OPTIONS)


@cache
def _tokenizer(path: Path, modified_ns: int) -> Tokenizer:
    """Read a tokenizer, once per modification time of the file."""
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
            "a tokenising process died, most likely out of memory; run the same command again with fewer --workers, "
            "and it resumes where it stopped."
        ) from None
