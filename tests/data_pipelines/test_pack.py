import errno
import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.corpus.folder import read_folder
from data_pipelines.lock import locked
from data_pipelines.packing import pack as module
from data_pipelines.packing.held_out import HeldOutBytes, HeldOutFraction
from data_pipelines.packing.pack import PackOptions, pack
from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer
from mythos.config.base import ConfigError
from mythos.data.manifest import read_manifest
from mythos.data.shards import ShardWriter, open_split
from mythos.data.tokenizer import load_tokenizer, text_of
from mythos.data.verification import verify
from mythos.data.windows import Windows
from mythos.types import IGNORED

HELD_OUT = HeldOutBytes(num_bytes=2500)
OPTIONS = PackOptions(held_out=HELD_OUT)
OTHER = PackOptions(held_out=HeldOutBytes(num_bytes=2000))
BEST_FIT = PackOptions(held_out=HELD_OUT, seq_len=64)


@pytest.fixture
def directory(text_directory: Path, tmp_path: Path) -> Path:
    """Folder with a tokenizer and no shards yet."""
    write_tokenizer(text_directory, tmp_path / "packed", TokenizerOptions(vocab_size=300), HELD_OUT, overwrite=False)
    return tmp_path / "packed"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Folder of 60 documents of a few lines."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02d}.txt").write_text(f"the king shall speak {number} times\n" * (number % 7 + 1))
    return folder


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize("shard_num_tokens", [64, 10**6])
def test_text_is_restored_byte_for_byte(text_directory: Path, directory: Path, shard_num_tokens: int) -> None:
    options = PackOptions(held_out=HELD_OUT, shard_num_tokens=shard_num_tokens)
    manifest = pack(text_directory, directory, options)
    whole = "".join(document.text for document in read_folder(text_directory)).encode()
    held_out = text_of(directory, "validation")
    assert text_of(directory, "train") + held_out == whole
    assert HELD_OUT.num_bytes <= len(held_out) <= HELD_OUT.num_bytes + 3
    assert manifest.splits["validation"].num_bytes == len(held_out)
    assert manifest.splits["train"].num_bytes == len(whole) - len(held_out)
    assert max(shard.num_tokens for split in manifest.splits.values() for shard in split.shards) <= shard_num_tokens
    assert verify(directory) == []
    assert not (directory / ".packing").exists()


def test_separators_are_exactly_the_document_starts(text_directory: Path, directory: Path) -> None:
    manifest = pack(text_directory, directory, OPTIONS)
    assert (manifest.dtype, manifest.vocab_size, manifest.separator_id) == ("uint16", 300, 0)
    for split in ("train", "validation"):
        (shard,) = open_split(directory, split)
        assert np.array_equal(np.flatnonzero(shard.tokens_N == 0), shard.document_starts)
        assert len(shard.document_starts) == 2
        assert int(shard.tokens_N.max()) < 300


def test_the_same_inputs_are_packed_once(text_directory: Path, directory: Path) -> None:
    first = pack(text_directory, directory, OPTIONS)
    written = (directory / "train-00000.tokens").stat().st_mtime_ns
    assert pack(text_directory, directory, OPTIONS) == first
    assert (directory / "train-00000.tokens").stat().st_mtime_ns == written


def test_another_dataset_is_kept_without_overwrite(text_directory: Path, directory: Path) -> None:
    pack(text_directory, directory, PackOptions(held_out=HELD_OUT, shard_num_tokens=64))
    before = contents(directory)
    with pytest.raises(ConfigError, match="holds another dataset; give --overwrite"):
        pack(text_directory, directory, OTHER)
    assert contents(directory) == before
    (directory / "notes.txt").write_text("mine")
    pack(text_directory, directory, OTHER, overwrite=True)
    assert verify(directory) == []
    shards = {f"{split}-00000.{kind}" for split in ("train", "validation") for kind in ("tokens", "documents")}
    assert set(contents(directory)) == shards | {"manifest.json", "tokenizer.json", "notes.txt"}


@pytest.mark.parametrize("options", [OPTIONS, BEST_FIT])
def test_processes_and_repetition_change_no_byte(text_directory: Path, directory: Path, options: PackOptions) -> None:
    pack(text_directory, directory, options)
    before = contents(directory)
    pack(text_directory, directory, options, overwrite=True, num_workers=2)
    assert contents(directory) == before


@pytest.mark.parametrize("seq_len", [None, 32])
def test_a_full_disk_loses_nothing_and_packing_resumes(
    many: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, seq_len: int | None
) -> None:
    options = PackOptions(held_out=HeldOutFraction(fraction=0.2), seq_len=seq_len, shard_num_tokens=200)
    pack(many, directory, options)
    expected = contents(directory)
    num_shards = len(read_manifest(directory).splits["train"].shards)
    assert num_shards > 6
    append, num_left = ShardWriter.append, 0

    def fail(writer: ShardWriter, *arguments: object, **named: object) -> None:
        nonlocal num_left
        num_left -= 1
        if num_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(writer, *arguments, **named)

    tokenizer = {"tokenizer.json": expected["tokenizer.json"]}
    for name in expected.keys() - tokenizer.keys():
        (directory / name).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "append", fail)
        num_done = []
        for _ in range(2):
            num_left = 25
            with pytest.raises(OSError, match="No space left"):
                pack(many, directory, options)
            assert contents(directory) == tokenizer
            num_done.append(json.loads((directory / ".packing" / "progress.json").read_text())["num_parts"])
        assert 0 < num_done[0] < num_done[1] < 60
    pack(many, directory, options)
    assert contents(directory) == expected
    assert not (directory / ".packing").exists()


def test_text_that_changed_during_an_interruption_is_packed_from_the_start(
    many: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PackOptions(held_out=HeldOutFraction(fraction=0.2), shard_num_tokens=200)
    close = ShardWriter.close

    def fail(writer: ShardWriter) -> object:
        if writer._name == "train-00004":
            raise OSError(errno.ENOSPC, "No space left on device")
        return close(writer)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "close", fail)
        with pytest.raises(OSError, match="No space left"):
            pack(many, directory, options)
    (many / "00.txt").write_text("another king")
    pack(many, directory, options)
    first = open_split(directory, "train")[0]
    end = int(first.document_starts[1])
    assert load_tokenizer(directory).decode(first.tokens_N[1:end].tolist()) == "another king"
    assert verify(directory) == []


def test_an_error_leaves_no_files(text_directory: Path, directory: Path) -> None:
    with pytest.raises(ConfigError, match="--held-out-bytes is 99999999, but the text has"):
        pack(text_directory, directory, PackOptions(held_out=HeldOutBytes(num_bytes=99999999)))
    assert {path.name for path in directory.iterdir()} == {"tokenizer.json"}


def test_best_fit_leaves_validation_a_stream_and_all_text_a_target(many: Path, directory: Path) -> None:
    options = PackOptions(held_out=HeldOutFraction(fraction=0.2), seq_len=64)
    manifest = pack(many, directory, options)
    fitted = manifest.splits["train"].best_fit
    assert fitted is not None
    assert manifest.splits["validation"].best_fit is None
    assert fitted.num_documents + manifest.splits["validation"].num_documents == 60
    assert fitted.num_cropped_documents == 0 or fitted.num_pieces > fitted.num_documents
    assert 0.8 < fitted.utilisation <= 1
    windows = Windows(directory, "train", 64, keep_partial=False)
    targets = windows.read(np.arange(len(windows))).targets_BS
    tokenizer = load_tokenizer(directory)
    num_bytes = len(tokenizer.decode(targets[targets > 0].tolist()).encode())
    assert num_bytes == manifest.splits["train"].num_bytes
    assert (targets == 0).sum() == fitted.num_documents
    assert (targets == IGNORED).any()
    assert verify(directory) == []
    with pytest.raises(ConfigError, match="were fitted into windows and have lost their order"):
        text_of(directory, "train")
    ignored = directory / "train-00000.ignored"
    ignored.write_bytes(ignored.read_bytes()[:-8])
    assert "train-00000.ignored has" in verify(directory)[0]


def test_a_folder_without_tokenizer_is_refused(text_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json: no such file; train it with mythos-data tokenizer"):
        pack(text_directory, tmp_path / "new", OPTIONS)
    assert not (tmp_path / "new").exists()


def test_a_tokenizer_without_separator_is_refused(text_directory: Path, directory: Path) -> None:
    path = directory / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|other|>"))
    with pytest.raises(ConfigError, match=r"has no token <\|endoftext\|>"):
        pack(text_directory, directory, OPTIONS)
    with pytest.raises(ConfigError, match=r"holds no manifest\.json"):
        read_manifest(directory)


def test_an_interrupted_renaming_leaves_no_dataset_and_packing_restarts(
    many: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PackOptions(held_out=HeldOutFraction(fraction=0.2), shard_num_tokens=200)
    pack(many, directory, options)
    expected = contents(directory)
    replace, num_left = Path.replace, 12

    def die(path: Path, target: Path) -> Path:
        nonlocal num_left
        if path.name.startswith(("train", "validation")):
            num_left -= 1
            if num_left < 0:
                raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            pack(many, directory, options, overwrite=True)
    with pytest.raises(ConfigError, match=r"holds no manifest\.json"):
        read_manifest(directory)
    pack(many, directory, options)
    assert contents(directory) == expected


def test_two_runs_do_not_share_a_folder(text_directory: Path, directory: Path) -> None:
    with locked(directory), pytest.raises(ConfigError, match=r"another run is at work in .*packed; wait for it"):
        pack(text_directory, directory, OPTIONS)
    with locked(directory), pytest.raises(ConfigError, match="another run is at work"):
        write_tokenizer(text_directory, directory, TokenizerOptions(vocab_size=290), HELD_OUT, overwrite=True)
    assert {path.name for path in directory.iterdir()} == {"tokenizer.json"}
    pack(text_directory, directory, OPTIONS)
    assert verify(directory) == []


def test_a_dataset_that_another_run_finished_meanwhile_is_kept(
    text_directory: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # The other run finishes between this run's look at the folder and its lock.
        patch.setattr(module, "locked", lambda folder: Finishing(text_directory, folder))
        with pytest.raises(ConfigError, match="holds another dataset; give --overwrite"):
            pack(text_directory, directory, OPTIONS)
    assert verify(directory) == []


class Finishing:
    """Stands for the lock, and for another run that packs other options before it is granted."""

    def __init__(self, text_directory: Path, directory: Path) -> None:
        self.paths = text_directory, directory

    def __enter__(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "locked", locked)
            pack(*self.paths, OTHER)

    def __exit__(self, *error: object) -> None:
        pass
