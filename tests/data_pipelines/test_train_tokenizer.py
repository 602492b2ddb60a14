import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.corpus.folder import read_folder
from data_pipelines.packing.held_out import HeldOutBytes
from data_pipelines.tokenizer.train import TokenizerOptions, default_vocab_size, train_tokenizer, write_tokenizer
from mythos.config.base import ConfigError
from mythos.data.tokenizer import read_tokenizer

PROGRAM = """
import sys
from pathlib import Path
from data_pipelines.packing.held_out import HeldOutBytes
from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer
held_out = HeldOutBytes(num_bytes=500)
write_tokenizer(Path(sys.argv[1]), Path(sys.argv[2]), TokenizerOptions(vocab_size=300), held_out, False)
"""


OPTIONS = TokenizerOptions(vocab_size=300)
HELD_OUT = HeldOutBytes(num_bytes=500)


def test_threads_and_processes_change_no_byte(text_directory: Path, tmp_path: Path) -> None:
    digests = set()
    for num_threads in ("1", "4"):
        target = tmp_path / num_threads
        environment = os.environ | {"RAYON_NUM_THREADS": num_threads}
        arguments = [sys.executable, "-c", PROGRAM, str(text_directory), str(target)]
        subprocess.run(arguments, env=environment, check=True)
        digests.add(hashlib.sha256((target / "tokenizer.json").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_vocabulary_is_full_and_the_separator_first(text_directory: Path) -> None:
    tokenizer = train_tokenizer((document.text for document in read_folder(text_directory)), OPTIONS)
    assert tokenizer.get_vocab_size() == 300
    assert tokenizer.token_to_id("<|endoftext|>") == 0


def test_held_out_text_is_not_used_for_training(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("abab cdcd " * 50)
    (text / "b.txt").write_text("wxyz" * 100)
    options = TokenizerOptions(vocab_size=262)
    write_tokenizer(text, tmp_path / "out", options, HeldOutBytes(num_bytes=400), overwrite=False)
    vocabulary = read_tokenizer(tmp_path / "out" / "tokenizer.json").get_vocab()
    assert "abab" in vocabulary
    assert "wx" not in vocabulary


def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="is to have 2000 entries, but the training text fills only 258;"):
        train_tokenizer(["ab ab"], TokenizerOptions(vocab_size=2000))


@pytest.mark.parametrize(
    ("num_bytes", "size"),
    [(0, 512), (249_999, 512), (250_000, 1024), (999_999, 1024), (10**6, 2048), (5_318_858, 2048), (2 * 10**9, 32768)],
)
def test_the_default_vocabulary_grows_with_the_text(num_bytes: int, size: int) -> None:
    assert default_vocab_size(num_bytes) == size


def test_a_default_vocabulary_is_no_larger_than_the_text_fills(tmp_path: Path) -> None:
    text = tmp_path / "my own text"
    text.mkdir()
    (text / "a.txt").write_text("abab cdcd " * 50)
    assert write_tokenizer(text, tmp_path / "out", TokenizerOptions(), HeldOutBytes(num_bytes=100), False) == 263
    assert read_tokenizer(tmp_path / "out" / "tokenizer.json").get_vocab_size() == 263


def test_a_vocabulary_without_room_for_all_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="is to have 256 entries, but 256 bytes and the separator need 257"):
        TokenizerOptions(vocab_size=256)


def test_another_tokenizer_is_kept_without_overwrite(text_directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    write_tokenizer(text_directory, target, OPTIONS, HELD_OUT, overwrite=False)
    written = (target / "tokenizer.json").stat().st_mtime_ns
    write_tokenizer(text_directory, target, OPTIONS, HELD_OUT, overwrite=False)
    assert (target / "tokenizer.json").stat().st_mtime_ns == written
    smaller = TokenizerOptions(vocab_size=290)
    with pytest.raises(ConfigError, match="is another tokenizer; give --overwrite"):
        write_tokenizer(text_directory, target, smaller, HELD_OUT, overwrite=False)
    write_tokenizer(text_directory, target, smaller, HELD_OUT, overwrite=True)
    assert read_tokenizer(target / "tokenizer.json").get_vocab_size() == 290


def test_digits_can_be_split() -> None:
    texts = ["2024 1999 2024 1999 the year " * 20]
    grouped = train_tokenizer(texts, TokenizerOptions(vocab_size=262))
    split = train_tokenizer(texts, TokenizerOptions(vocab_size=262, split_digits=True))
    assert len(grouped.encode("2024").ids) < 4
    assert split.encode("2024").tokens == ["2", "0", "2", "4"]


def test_special_tokens_follow_the_separator_and_text_is_never_encoded_to_them(tmp_path: Path) -> None:
    options = TokenizerOptions(vocab_size=262, special_tokens=("<|user|>", "<|tool|>"))
    tokenizer = train_tokenizer(["ab ab <|user|> "] * 20, options)
    assert [tokenizer.token_to_id(name) for name in ("<|endoftext|>", *options.special_tokens)] == [0, 1, 2]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert not {0, 1, 2} & set(read_tokenizer(tmp_path / "tokenizer.json").encode("<|user|>").ids)


def test_duplicate_or_too_many_special_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--special-tokens is '<\|endoftext\|>'; give names"):
        TokenizerOptions(vocab_size=300, special_tokens=("<|endoftext|>",))
    with pytest.raises(ConfigError, match=r"--special-tokens is 'caf\\udce9'; give names that .* are UTF-8"):
        TokenizerOptions(vocab_size=300, special_tokens=("caf\udce9",))
    with pytest.raises(ConfigError, match="is to have 257 entries, but 256 bytes and 2 special tokens need 258"):
        TokenizerOptions(vocab_size=257, special_tokens=("<|user|>",))


def test_an_error_of_the_held_out_size_reaches_the_user(text_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--held-out-bytes is 10000000, but the text has"):
        write_tokenizer(text_directory, tmp_path / "out", OPTIONS, HeldOutBytes(num_bytes=10**7), overwrite=False)
    assert not (tmp_path / "out").exists()
