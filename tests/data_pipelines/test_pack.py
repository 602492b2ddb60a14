from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.corpus.folder import read_folder
from data_pipelines.packing import pack as pack_module
from data_pipelines.packing.pack import pack
from data_pipelines.tokenizer.train import write_tokenizer
from mythos.config.base import ConfigError
from mythos.data.manifest import read_manifest
from mythos.data.shards import open_split, verify
from mythos.data.tokenizer import text_of

HELD_OUT_BYTES = 2500


@pytest.fixture
def directory(text_directory: Path, tmp_path: Path) -> Path:
    """A folder with a tokenizer and no shards yet."""
    write_tokenizer(text_directory, tmp_path / "packed", 300, HELD_OUT_BYTES, overwrite=False)
    return tmp_path / "packed"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("shard_num_tokens", [1, 10**6])
def test_text_comes_back_byte_for_byte(text_directory: Path, directory: Path, shard_num_tokens: int) -> None:
    manifest = pack(text_directory, directory, HELD_OUT_BYTES, shard_num_tokens=shard_num_tokens)
    whole = "".join(document.text for document in read_folder(text_directory)).encode()
    held_out = text_of(directory, "validation")
    assert text_of(directory, "train") + held_out == whole
    assert HELD_OUT_BYTES <= len(held_out) <= HELD_OUT_BYTES + 3
    assert manifest.splits["validation"].num_bytes == len(held_out)
    assert manifest.splits["train"].num_bytes == len(whole) - len(held_out)
    assert verify(directory) == []


def test_every_document_opens_with_the_only_separators(text_directory: Path, directory: Path) -> None:
    manifest = pack(text_directory, directory, HELD_OUT_BYTES)
    assert (manifest.dtype, manifest.vocab_size, manifest.separator_id) == ("uint16", 300, 0)
    for split in ("train", "validation"):
        (shard,) = open_split(directory, split)
        assert np.array_equal(np.flatnonzero(shard.tokens_N == 0), shard.document_starts)
        assert len(shard.document_starts) == 2
        assert int(shard.tokens_N.max()) < 300


def test_the_same_inputs_are_packed_once(text_directory: Path, directory: Path) -> None:
    first = pack(text_directory, directory, HELD_OUT_BYTES)
    written = (directory / "train-00000.tokens").stat().st_mtime_ns
    assert pack(text_directory, directory, HELD_OUT_BYTES) == first
    assert (directory / "train-00000.tokens").stat().st_mtime_ns == written


def test_another_dataset_is_kept_unless_told(text_directory: Path, directory: Path) -> None:
    pack(text_directory, directory, HELD_OUT_BYTES, shard_num_tokens=1)
    before = contents(directory)
    with pytest.raises(ConfigError, match="holds another dataset; give --overwrite"):
        pack(text_directory, directory, 2000)
    assert contents(directory) == before
    (directory / "notes.txt").write_text("mine")
    pack(text_directory, directory, 2000, overwrite=True)
    assert verify(directory) == []
    shards = {f"{split}-00000.{kind}" for split in ("train", "validation") for kind in ("tokens", "documents")}
    assert set(contents(directory)) == shards | {"manifest.json", "tokenizer.json", "notes.txt"}


def test_two_runs_write_the_same_bytes(text_directory: Path, directory: Path) -> None:
    pack(text_directory, directory, HELD_OUT_BYTES)
    before = contents(directory)
    pack(text_directory, directory, HELD_OUT_BYTES, overwrite=True)
    assert contents(directory) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_in_the_middle_leaves_what_was_there(
    text_directory: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    if overwrite:
        pack(text_directory, directory, HELD_OUT_BYTES)
    before = contents(directory)
    write_split: Callable = pack_module._write_split

    def fail_at_validation(*arguments: object) -> object:
        if arguments[-1] == "validation":
            raise OSError("the disk is full")
        return write_split(*arguments)

    monkeypatch.setattr(pack_module, "_write_split", fail_at_validation)
    with pytest.raises(OSError, match="the disk is full"):
        pack(text_directory, directory, 2000, overwrite=overwrite)
    assert contents(directory) == before


def test_a_folder_without_tokenizer_is_refused(text_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json: no such file; train it with mythos-data tokenizer"):
        pack(text_directory, tmp_path / "new", HELD_OUT_BYTES)
    assert not (tmp_path / "new").exists()


def test_a_tokenizer_without_separator_is_refused(text_directory: Path, directory: Path) -> None:
    path = directory / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|other|>"))
    with pytest.raises(ConfigError, match=r"has no token <\|endoftext\|>"):
        pack(text_directory, directory, HELD_OUT_BYTES)
    with pytest.raises(ConfigError, match=r"holds no manifest\.json"):
        read_manifest(directory)
