import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.corpus.folder import Document, read_folder
from data_pipelines.tokenizer.train import train_tokenizer, write_tokenizer
from mythos.config.base import ConfigError
from mythos.data.tokenizer import read_tokenizer

PROGRAM = """
import sys
from pathlib import Path
from data_pipelines.tokenizer.train import write_tokenizer
write_tokenizer(Path(sys.argv[1]), Path(sys.argv[2]), 300, 500, False)
"""


def test_threads_and_processes_change_no_byte(text_directory: Path, tmp_path: Path) -> None:
    digests = set()
    for num_threads in ("1", "4"):
        target = tmp_path / num_threads
        environment = os.environ | {"RAYON_NUM_THREADS": num_threads}
        arguments = [sys.executable, "-c", PROGRAM, str(text_directory), str(target)]
        subprocess.run(arguments, env=environment, check=True, timeout=60)
        digests.add(hashlib.sha256((target / "tokenizer.json").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_vocabulary_is_full_and_the_separator_first(text_directory: Path) -> None:
    tokenizer = train_tokenizer(read_folder(text_directory), 300)
    assert tokenizer.get_vocab_size() == 300
    assert tokenizer.token_to_id("<|endoftext|>") == 0


def test_held_out_text_teaches_nothing(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("abab cdcd " * 50)
    (text / "b.txt").write_text("wxyz" * 100)
    write_tokenizer(text, tmp_path / "out", 262, 400, overwrite=False)
    vocabulary = read_tokenizer(tmp_path / "out" / "tokenizer.json").get_vocab()
    assert "abab" in vocabulary
    assert "wx" not in vocabulary


def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="--vocab-size is 2000, but the training text fills only 258;"):
        train_tokenizer([Document("a", "ab ab")], 2000)


def test_a_vocabulary_without_room_for_all_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="--vocab-size is 256, but 256 bytes and the separator need 257"):
        train_tokenizer([Document("a", "ab ab")], 256)


def test_another_tokenizer_is_kept_unless_told(text_directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    write_tokenizer(text_directory, target, 300, 500, overwrite=False)
    written = (target / "tokenizer.json").stat().st_mtime_ns
    write_tokenizer(text_directory, target, 300, 500, overwrite=False)
    assert (target / "tokenizer.json").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="is another tokenizer; give --overwrite"):
        write_tokenizer(text_directory, target, 290, 500, overwrite=False)
    write_tokenizer(text_directory, target, 290, 500, overwrite=True)
    assert read_tokenizer(target / "tokenizer.json").get_vocab_size() == 290
