from collections.abc import Callable
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.data.tokenizer import load_tokenizer, read_tokenizer

MakeDataset = Callable[..., Path]


def test_special_tokens_spelt_out_are_ordinary_text(make_dataset: MakeDataset) -> None:
    tokenizer = load_tokenizer(make_dataset([5]))
    text = "a<|endoftext|>\r\n é 日本 \x00"
    ids = tokenizer.encode(text).ids
    assert tokenizer.token_to_id("<|endoftext|>") == 0
    assert 0 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_a_foreign_tokenizer_is_refused(make_dataset: MakeDataset) -> None:
    directory = make_dataset([5])
    path = directory / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"has SHA-256 \w{12}, but the shards were packed with \w{12}; restore"):
        load_tokenizer(directory)
    path.unlink()
    with pytest.raises(ConfigError, match="is missing, but the shards were packed with"):
        load_tokenizer(directory)


def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; train it with mythos-data tokenizer"):
        read_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not a tokenizer"):
        read_tokenizer(tmp_path / "tokenizer.json")
