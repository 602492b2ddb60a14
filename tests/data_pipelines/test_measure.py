import base64
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from data_pipelines.packing.held_out import HeldOutBytes
from data_pipelines.tokenizer.foreign import open_tokenizer, split_token
from data_pipelines.tokenizer.measure import Measure, measure, table
from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer
from mythos.config.base import ConfigError


def write_tiktoken(path: Path, tokenizer_path: Path) -> Path:
    """Write a tokenizer's vocabulary in tiktoken's format: bytes in base64 and ranks in the order of merging."""
    vocabulary = Tokenizer.from_file(str(tokenizer_path)).get_vocab()
    printable = {chr(b) if chr(b).isprintable() and b not in (32, 160, 173) else None: b for b in range(256)}
    others = iter(range(256))
    byte_of = {chr(b): b for b in range(256) if chr(b) in printable and not 127 <= b <= 160}
    byte_of |= {chr(256 + next(others)): b for b in range(256) if chr(b) not in byte_of}
    tokens = sorted((rank, token) for token, rank in vocabulary.items() if token != "<|endoftext|>")
    lines = [
        base64.b64encode(bytes(byte_of[letter] for letter in token)) + b" %d" % (rank - 1) for rank, token in tokens
    ]
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.fixture
def trained(text_directory: Path, tmp_path: Path) -> Path:
    write_tokenizer(text_directory, tmp_path / "t", TokenizerOptions(vocab_size=300), HeldOutBytes(num_bytes=9), False)
    return tmp_path / "t" / "tokenizer.json"


def test_each_source_is_measured_by_each_tokenizer(tmp_path: Path, trained: Path) -> None:
    text = tmp_path / "mixed"
    (text / "prose").mkdir(parents=True)
    (text / "prose" / "a.txt").write_text("the king shall sleep " * 10)
    (text / "prose" / "b.txt").write_text("é é")
    (text / "notes.txt").write_text("q" * 40)
    byte_level = Tokenizer.from_file(str(trained))
    byte_level.model = models.BPE({token: i for i, token in enumerate(sorted(byte_level.get_vocab()))}, [])
    byte_level.save(str(tmp_path / "bytes.json"))
    rows = measure(text, [trained.parent, tmp_path / "bytes.json"])
    assert [(row.source, row.tokenizer, row.num_bytes, row.num_words) for row in rows] == [
        ("mixed", str(trained.parent), 40, 1),
        ("mixed", str(tmp_path / "bytes.json"), 40, 1),
        ("prose", str(trained.parent), 215, 42),
        ("prose", str(tmp_path / "bytes.json"), 215, 42),
    ]
    assert [row.num_tokens for row in rows[1::2]] == [40, 215]
    assert rows[2].num_tokens < 140


def test_the_table_prints_ratios() -> None:
    lines = table([Measure("web", "gpt2", 1000, 200, 250)]).splitlines()
    assert lines[0].split() == ["source", "tokenizer", "tokens", "bytes/token", "words/token"]
    assert lines[1].split() == ["web", "gpt2", "250", "4.000", "0.800"]


@pytest.mark.parametrize("name", ["cl100k_base.tiktoken", "o200k_base.tiktoken", "r50k_base.tiktoken"])
def test_merges_are_recovered_from_ranks(text_directory: Path, tmp_path: Path, trained: Path, name: str) -> None:
    foreign = open_tokenizer(write_tiktoken(tmp_path / name, trained))
    own = open_tokenizer(trained)
    # All of these split words between single spaces alike.
    for text in ("the king shall speak", " sleep night of morning", "日本 é 😀"):
        assert foreign.encode(text).ids == [token - 1 for token in own.encode(text).ids]


def test_a_token_is_split_as_its_bytes_merge() -> None:
    ranks = {bytes([byte]): byte for byte in b"abc"} | {b"bc": 300, b"ab": 301, b"abc": 302, b"abab": 303}
    assert split_token(b"abc", ranks) == (b"a", b"bc")
    assert split_token(b"abab", ranks) == (b"ab", b"ab")


def test_gpt2_files_are_read(tmp_path: Path, trained: Path) -> None:
    model = json.loads(trained.read_text())["model"]
    directory = tmp_path / "gpt2"
    directory.mkdir()
    (directory / "encoder.json").write_text(json.dumps(model["vocab"]))
    (directory / "vocab.bpe").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))
    text = "the king shall speak"
    assert open_tokenizer(directory).encode(text).ids == open_tokenizer(trained).encode(text).ids


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "o200k_base.tiktoken").write_text("no base64")
    with pytest.raises(ConfigError, match=r"o200k_base\.tiktoken is not a tiktoken file"):
        open_tokenizer(tmp_path / "o200k_base.tiktoken")
    (tmp_path / "mine.tiktoken").write_bytes(base64.b64encode(b"a") + b" 0")
    with pytest.raises(ConfigError, match=r"the file's name must state the encoding, but it has none of gpt2, r50k"):
        open_tokenizer(tmp_path / "mine.tiktoken")
    with pytest.raises(ConfigError, match=r"holds neither tokenizer\.json nor encoder\.json"):
        open_tokenizer(tmp_path)
