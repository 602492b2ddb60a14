import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from data_pipelines.packing.held_out import HeldOutBytes
from data_pipelines.tokenizer import long_runs as module
from data_pipelines.tokenizer.long_runs import MOST_CHARS, cut_long
from data_pipelines.tokenizer.train import TokenizerOptions, train_tokenizer, write_tokenizer

OPTIONS = TokenizerOptions(vocab_size=262)
SPLIT = pre_tokenizers.Split(Regex(OPTIONS.pattern), "isolated")
RUNS = {
    "letters": "a",
    "NULs": "\0",
    "combining marks": "\u0301",
    "blanks": " ",
    "line feeds": "\n",
    "carriage returns": "\r",
    "emoji": "😀",
    "unit separators": "\x1f!",
    "ideographs": "天",
    "signs and line ends": "!\x1c",
}


def pre_tokens(text: str) -> list[str]:
    return [token for token, _ in SPLIT.pre_tokenize_str(text)]


TEXT = st.text(st.sampled_from("ab1 .,'\n\r\té日\u0301\0\x1c\u00a0"), max_size=80)


@given(text=TEXT)
@settings(max_examples=300)
def test_pre_tokens_are_unchanged_except_that_long_ones_are_cut(text: str) -> None:
    lengths: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_CHARS", 6)
        patch.setattr(module, "_STRETCH_NUM_CHARS", 3)
        parts = list(cut_long(text, SPLIT, lengths.append))
    assert "".join(parts) == text
    whole = pre_tokens(text)
    assert lengths == [len(token) for token in whole if len(token) > 6]
    assert max((len(token) for part in parts for token in pre_tokens(part)), default=0) <= 6
    if not lengths:
        assert [token for part in parts for token in pre_tokens(part)] == whole


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_training_time_is_linear_in_a_run_without_a_break(run: str) -> None:
    def seconds(num_chars: int) -> float:
        text = f"ab ab {run * (num_chars // len(run))}x cd cd"
        start = time.perf_counter()
        train_tokenizer([text], TokenizerOptions(vocab_size=259))
        return time.perf_counter() - start

    # 16 times as much text takes 256 times as long if the time is quadratic: half a minute rather than a second.
    assert seconds(320_000) < 64 * max(seconds(20_000), 0.02)


def test_the_files_with_long_runs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("abab cdcd " * 200)
    (text / "b.txt").write_text("ab " + "a" * 3000 + " " + "b" * 5000)
    (text / "c.txt").write_text("\0" * 2000)
    (text / "held-out.txt").write_text("z" * 9000)
    write_tokenizer(text, tmp_path / "out", OPTIONS, HeldOutBytes(num_bytes=9000), overwrite=False)
    error = capsys.readouterr().err
    assert error.startswith("mythos-data: 2 texts hold runs of more than 1,024 characters without a break")
    assert error.endswith(": b.txt (5,001), c.txt (2,000).\n")


def test_text_without_long_runs_trains_the_same_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdé", k=generator.randrange(1, 9))) for _ in range(300)]
    # Paragraphs without any blank are split by the library, but have no long run.
    texts = [sign.join(generator.choices(words, k=2000)) for sign in (" ", "\n", "。", "1", "  \n ")]
    options = TokenizerOptions(vocab_size=400)
    bounded = train_tokenizer(texts, options).to_str()
    monkeypatch.setattr("data_pipelines.tokenizer.train.cut_long", lambda text, split, report: iter([text]))
    assert train_tokenizer(texts, options).to_str() == bounded


def test_a_long_run_is_encoded_whole() -> None:
    tokenizer = train_tokenizer(["ab" * 2000 + " ab" * 50], TokenizerOptions(vocab_size=268))
    assert tokenizer.pre_tokenizer is not None
    run = "ab" * (2 * MOST_CHARS) + "a"
    assert [token for token, _ in tokenizer.pre_tokenizer.pre_tokenize_str(run)] == [run]
    assert tokenizer.decode(tokenizer.encode(run).ids) == run
