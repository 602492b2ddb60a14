import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing import tokenize as module
from data_pipelines.packing.held_out import HeldOutBytes
from data_pipelines.packing.tokenize import tokenize
from data_pipelines.tokenizer import pieces as pieces_module
from data_pipelines.tokenizer.pieces import cut
from data_pipelines.tokenizer.train import TokenizerOptions, train_tokenizer, write_tokenizer
from mythos.data.tokenizer import read_tokenizer


@pytest.fixture
def tokenizer_path(text_directory: Path, tmp_path: Path) -> Path:
    write_tokenizer(text_directory, tmp_path / "t", TokenizerOptions(vocab_size=300), HeldOutBytes(num_bytes=9), False)
    return tmp_path / "t" / "tokenizer.json"


@pytest.mark.parametrize("num_workers", [1, 2])
def test_processes_change_neither_ids_nor_order(
    tokenizer_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PORTION_NUM_CHARS", 50)
    texts = [f"the king {number}\nshall sleep" * (number % 3) for number in range(40)]
    tokenizer = read_tokenizer(tokenizer_path)
    results = list(tokenize(texts, str, tokenizer_path, num_workers))
    assert [text for text, _ in results] == texts
    for text, ids in results:
        assert ids.dtype == np.uint32
        assert ids.tolist() == tokenizer.encode(text).ids


TEXT = st.text(st.sampled_from("ab1 .,'\n\r\té日"), max_size=300)
TOKENIZER = train_tokenizer(["ab ab.\n\n ab, 11 'b\r\n"] * 30, TokenizerOptions(vocab_size=262))


@given(text=TEXT)
@settings(max_examples=200)
def test_no_token_crosses_a_cut(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "PIECE_NUM_CHARS", 3)
        pieces = list(cut(text))
    assert "".join(pieces) == text
    assert [token for piece in pieces for token in TOKENIZER.encode(piece).ids] == TOKENIZER.encode(text).ids


def mark_and_sleep(path: Path, texts: list[str]) -> object:
    Path(f"{texts[0]}.pid").write_text(str(os.getpid()))
    time.sleep(3600)
    raise AssertionError("the worker outlived its run")


def test_workers_exit_when_their_run_is_killed(tmp_path: Path, workers_end_with) -> None:
    program = (
        "import test_tokenize as t; t.module.encode_texts = t.mark_and_sleep; t.module.PORTION_NUM_CHARS = 1\n"
        "list(t.tokenize(['a', 'b', 'c'], str, t.Path('none'), 2))"
    )
    workers_end_with(program, [tmp_path / f"{name}.pid" for name in "ab"])
