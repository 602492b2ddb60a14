from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mythos.config.base import ConfigError
from mythos.data.manifest import read_manifest
from mythos.data.shards import open_split
from mythos.data.tokenizer import text_of
from mythos.data.verification import verify

MakeDataset = Callable[..., Path]


def flip_bit(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0b100
    path.write_bytes(content)


def test_a_document_crosses_shards_only_when_it_is_longer_than_one(make_dataset: MakeDataset) -> None:
    lengths = [3, 40, 0, 7, 90, 2]
    directory = make_dataset(lengths, shard_num_tokens=20)
    shards = open_split(directory, "train")
    # A shard that continues a document begins with the last token of the previous shard:
    # 41 = 20 + 19 + 2, 91 = 20 + 3 * 19 + 14.
    assert [len(shard.tokens_N) for shard in shards] == [4, 20, 20, 3 + 1 + 8, 20, 20, 20, 20, 15 + 3]
    assert [shard.continues for shard in shards] == [False, False, True, True, False, True, True, True, True]
    assert [shard.document_starts.tolist() for shard in shards] == [[0], [0], [], [3, 4], [0], [], [], [], [15]]
    for before, shard in pairwise(shards):
        assert np.array_equal(np.flatnonzero(shard.tokens_N == 0), shard.document_starts)
        if shard.continues:
            assert shard.tokens_N[0] == before.tokens_N[-1]
    split = read_manifest(directory).splits["train"]
    assert (split.num_documents, split.num_bytes) == (6, 142)
    assert split.num_tokens == 148 + 6


def test_text_of_documents_in_several_shards_is_restored(make_dataset: MakeDataset) -> None:
    lengths = [3, 40, 0, 7, 90, 2]
    whole = text_of(make_dataset(lengths, name="whole"), "train")
    assert len(whole) == 142
    for shard_num_tokens in (2, 3, 17, 20, 92):
        directory = make_dataset(lengths, shard_num_tokens=shard_num_tokens, name=str(shard_num_tokens))
        assert text_of(directory, "train") == whole
        assert verify(directory) == []


@pytest.mark.parametrize(("dtype", "num_bytes"), [("uint16", 2), ("uint32", 4)])
def test_tokens_are_little_endian_and_nothing_else(make_dataset: MakeDataset, dtype: str, num_bytes: int) -> None:
    directory = make_dataset([30], dtype=dtype)
    content = (directory / "train-00000.tokens").read_bytes()
    assert len(content) == 31 * num_bytes
    tokens = [int.from_bytes(content[i : i + num_bytes], "little") for i in range(0, len(content), num_bytes)]
    assert open_split(directory, "train")[0].tokens_N.tolist() == tokens


def test_an_untouched_dataset_verifies(make_dataset: MakeDataset) -> None:
    assert verify(make_dataset([30, 20], shard_num_tokens=10)) == []


@pytest.mark.parametrize("name", ["train-00000.tokens", "train-00001.documents", "validation-00000.tokens"])
def test_verify_finds_a_flipped_bit(make_dataset: MakeDataset, name: str) -> None:
    directory = make_dataset([30, 20], shard_num_tokens=35)
    flip_bit(directory / name, offset=5)
    problems = verify(directory)
    assert len(problems) == 1
    assert f"{name} changed after it was packed" in problems[0]


def test_a_truncated_shard_is_found_by_verify_and_by_the_reader(make_dataset: MakeDataset) -> None:
    directory = make_dataset([30])
    path = directory / "train-00000.tokens"
    path.write_bytes(path.read_bytes()[:-3])
    assert "has 59 bytes, but the manifest states 62" in verify(directory)[0]
    with pytest.raises(ConfigError, match="has 59 bytes, but the manifest states 62; pack again"):
        open_split(directory, "train")


def test_a_missing_shard_is_found_by_verify_and_by_the_reader(make_dataset: MakeDataset) -> None:
    directory = make_dataset([30])
    (directory / "train-00000.documents").unlink()
    assert "train-00000.documents is missing" in verify(directory)[0]
    with pytest.raises(ConfigError, match=r"train-00000\.documents is missing"):
        open_split(directory, "train")


def test_verify_finds_a_foreign_tokenizer(make_dataset: MakeDataset) -> None:
    directory = make_dataset([30])
    path = directory / "tokenizer.json"
    path.write_text(path.read_text().replace("false", "true", 1))
    problems = verify(directory)
    assert len(problems) == 1
    assert "is not the tokenizer that packed" in problems[0]


def test_an_unknown_split_is_refused(make_dataset: MakeDataset) -> None:
    with pytest.raises(ConfigError, match="has no split 'test', only train, validation"):
        open_split(make_dataset([30]), "test")
