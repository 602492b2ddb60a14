import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mythos.config.base import ConfigError
from mythos.config.data import DataConfig
from mythos.data.loader import batches, training_loader, validation_loader
from mythos.data.shards import open_split
from mythos.types import IGNORED, Batch

MakeDataset = Callable[..., Path]
LENGTHS = [30, 7, 61, 44, 2, 90, 13]


def config_for(directory: Path, **changes: object) -> DataConfig:
    fields = {"dir": str(directory), "seq_len": 8, "batch_size": 8, "micro_batch_size": 2}
    return DataConfig(**(fields | changes))


def rows(stream: Iterator[Batch]) -> dict[int, tuple[list[int], ...]]:
    """Tokens, targets, positions and document ids of each sample, by its id."""
    result = {}
    for batch in stream:
        assert batch.document_ids_BS is not None
        for row, sample in enumerate(batch.sample_ids_B.tolist()):
            fields = (batch.tokens_BS, batch.targets_BS, batch.positions_BS, batch.document_ids_BS)
            result[sample] = tuple(field[row].tolist() for field in fields)
    return result


def test_the_loader_yields_batches(make_dataset: MakeDataset) -> None:
    batch = next(iter(training_loader(config_for(make_dataset(LENGTHS)), seed=0)))
    assert type(batch) is Batch
    for field in (batch.tokens_BS, batch.targets_BS, batch.positions_BS, batch.document_ids_BS):
        assert field is not None
        assert (field.shape, field.dtype, field.is_contiguous()) == ((2, 8), torch.int64, True)
    assert batch.sample_ids_B.tolist() == [0, 1]
    # The counts are those of the whole step of 8 windows, though the micro-batch has 2.
    assert (batch.num_targets.item(), batch.num_targets.dtype, batch.num_targets.shape) == (
        64,
        torch.float32,
        (),
    )
    assert (batch.num_sequences.item(), batch.num_sequences.dtype) == (8, torch.float32)


def test_without_masking_positions_do_not_restart(make_dataset: MakeDataset) -> None:
    config = config_for(make_dataset(LENGTHS), mask_documents=False)
    batch = next(iter(training_loader(config, seed=0)))
    assert batch.document_ids_BS is None
    assert batch.positions_BS.tolist() == [list(range(8))] * 2


@pytest.mark.parametrize(("num_workers", "mask_documents"), [(1, True), (2, True), (1, False)])
def test_workers_change_nothing(make_dataset: MakeDataset, num_workers: int, mask_documents: bool) -> None:
    directory = make_dataset(LENGTHS)
    common = {"mask_documents": mask_documents}
    alone = islice(training_loader(config_for(directory, **common), seed=3, next_sample=6), 25)
    config = config_for(directory, **common, num_workers=num_workers)
    for expected, actual in zip(alone, islice(training_loader(config, seed=3, next_sample=6), 25), strict=True):
        assert type(actual) is Batch
        for left, right in zip(expected, actual, strict=True):
            if isinstance(left, torch.Tensor):
                assert (left.dtype, left.is_contiguous()) == (right.dtype, right.is_contiguous())
                assert torch.equal(left, right)
            else:
                assert left == right


def test_documents_are_counted_once_in_each_window(make_dataset: MakeDataset) -> None:
    batches = list(islice(training_loader(config_for(make_dataset(LENGTHS)), seed=0), 5))
    assert [batch.num_documents for batch in batches] == [
        sum(len(set(row)) for row in batch.document_ids_BS.tolist()) for batch in batches
    ]
    assert {batch.num_documents for batch in batches} != {2}


def test_a_worker_sends_one_storage_per_batch(make_dataset: MakeDataset) -> None:
    batch = next(iter(training_loader(config_for(make_dataset(LENGTHS), num_workers=1), seed=0)))
    sent = {part.untyped_storage().data_ptr() for part in batch if isinstance(part, torch.Tensor) and part.is_shared()}
    assert len(sent) == 1


@pytest.mark.parametrize("micro_batch_size", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_each_step_and_change_no_sample(
    make_dataset: MakeDataset, world_size: int, micro_batch_size: int
) -> None:
    directory = make_dataset(LENGTHS)
    expected = rows(islice(training_loader(config_for(directory), seed=3), 4 * 4))
    config = config_for(directory, micro_batch_size=micro_batch_size)
    num_per_step = 8 // micro_batch_size // world_size
    loaders = [iter(training_loader(config, 3, 0, rank, world_size)) for rank in range(world_size)]
    for step in range(4):
        samples: dict[int, tuple[list[int], ...]] = {}
        for loader in loaders:
            share = rows(islice(loader, num_per_step))
            assert not share.keys() & samples.keys()
            samples |= share
        assert samples == {sample: expected[sample] for sample in range(8 * step, 8 * step + 8)}


def test_a_restart_at_any_position_continues_with_the_same_samples(make_dataset: MakeDataset) -> None:
    config = config_for(make_dataset(LENGTHS), micro_batch_size=1)
    # 31 windows, so 70 samples cross two ends of an epoch.
    whole = rows(islice(training_loader(config, seed=1), 70))
    for start in range(0, 66):
        part = rows(islice(training_loader(config, seed=1, next_sample=start), 4))
        assert part == {sample: whole[sample] for sample in range(start, start + 4)}


def test_an_epoch_holds_every_window_once(make_dataset: MakeDataset) -> None:
    directory = make_dataset(LENGTHS)
    num_windows = (sum(LENGTHS) + len(LENGTHS) - 1) // 8
    config = config_for(directory, batch_size=1, micro_batch_size=1)
    seen = rows(islice(training_loader(config, seed=1), 2 * num_windows))
    first = [seen[sample][1] for sample in range(num_windows)]
    second = [seen[sample][1] for sample in range(num_windows, 2 * num_windows)]
    tokens = open_split(directory, "train")[0].tokens_N[1 : 1 + 8 * num_windows].astype(int)
    assert sorted(first) == sorted(second) == sorted(tokens.reshape(-1, 8).tolist())
    assert first != second


def test_validation_reads_the_first_micro_batches_in_order(make_dataset: MakeDataset) -> None:
    directory = make_dataset(
        LENGTHS,
        validation=(
            20,
            30,
        ),
    )
    validations = [list(validation_loader(config_for(directory), num_batches=2)) for _ in range(2)]
    tokens = open_split(directory, "validation")[0].tokens_N.astype(int).tolist()
    for validation in validations:
        assert [batch.sample_ids_B.tolist() for batch in validation] == [[0, 1], [2, 3]]
        assert torch.cat([batch.targets_BS.flatten() for batch in validation]).tolist() == tokens[1:33]
        assert [batch.num_targets.item() for batch in validation] == [16, 16]
        assert [batch.num_sequences.item() for batch in validation] == [2, 2]


def test_validation_ranks_share_the_micro_batches(make_dataset: MakeDataset) -> None:
    config = config_for(make_dataset(LENGTHS, validation=(60,)))
    shares = [rows(validation_loader(config, 4, rank, 2)) for rank in range(2)]
    assert [list(share) for share in shares] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    with pytest.raises(ConfigError, match=r"validation has 3 micro-batches for 2 ranks; set run\.validation"):
        validation_loader(config, 3, 0, 2)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 64])
def test_a_whole_split_counts_every_token_once(make_dataset: MakeDataset, micro_batch_size: int) -> None:
    directory = make_dataset(
        LENGTHS,
        validation=(
            20,
            31,
            6,
        ),
    )
    result = list(batches(directory, "validation", 8, micro_batch_size, mask_documents=True))
    targets = torch.cat([batch.targets_BS.flatten() for batch in result])
    tokens = open_split(directory, "validation")[0].tokens_N.astype(int).tolist()
    assert targets[targets != IGNORED].tolist() == tokens[1:]
    assert sum(batch.num_targets.item() for batch in result) == len(tokens) - 1
    assert sum(batch.num_sequences.item() for batch in result) == 8


def test_a_step_that_does_not_divide_is_refused_with_both_numbers(make_dataset: MakeDataset) -> None:
    config = config_for(make_dataset(LENGTHS))
    with pytest.raises(ConfigError, match=r"data\.batch_size is 8, but 3 ranks .* of 2 take 6 sequences"):
        training_loader(config, 0, 0, rank=0, world_size=3)


def refusal_of(loader: DataLoader[Batch]) -> str:
    """The message of the first batch's error."""
    iterator = iter(loader)
    with pytest.raises(ConfigError) as caught:
        next(iterator)
    if loader.num_workers:
        iterator._shutdown_workers()  # the garbage collector would wait for them
    return str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(("split", "shard"), [("train", 1), ("validation", 0)])
def test_an_id_that_the_tokenizer_does_not_have_is_refused_in_one_sentence(
    make_dataset: MakeDataset, num_workers: int, split: str, shard: int
) -> None:
    """The tokenizer has 257 tokens. Also from a worker, and for a target that no window takes as input."""
    directory = make_dataset([16, 16], validation=(16,), shard_num_tokens=17)
    path = directory / f"{split}-{shard:05d}.tokens"
    tokens = np.fromfile(path, "<u2")
    tokens[16] = 300
    tokens.tofile(path)
    config = config_for(directory, seq_len=16, batch_size=2, micro_batch_size=2, num_workers=num_workers)
    loader = training_loader(config, 0) if split == "train" else validation_loader(config, 1)
    assert refusal_of(loader) == (
        f"{path}: token 16 has the id 300, but the tokenizer that packed it has 257 tokens; the file is damaged: pack "
        f"again with mythos-data pack --overwrite --to {directory}."
    )


@pytest.mark.slow
def test_a_process_ends_though_its_workers_ignore_the_signal_to_end(make_dataset: MakeDataset) -> None:
    code = """
import sys
from mythos.config.data import DataConfig
from mythos.data.loader import training_loader

config = DataConfig(dir=sys.argv[1], seq_len=8, batch_size=2, micro_batch_size=2, num_workers=1)
kept = iter(training_loader(config, 0))
next(kept)
raise SystemExit(2)
"""
    command = [sys.executable, "-c", code, str(make_dataset(LENGTHS))]
    assert subprocess.run(command, check=False).returncode == 2
