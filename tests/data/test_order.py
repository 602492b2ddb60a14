"""Sample order of a mixture with stages and skipped ranges, for any number of ranks, workers and micro-batches."""

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mythos.config.base import ConfigError
from mythos.config.data import DataConfig, Source, Stage
from mythos.data.datamodule import TokenDataModule
from mythos.data.loader import training_loader, validation_loader
from mythos.data.stream import TrainingStream
from mythos.data.windows import Windows
from mythos.types import Batch

MakeDataset = Callable[..., Path]
SEED = 3
Row = tuple[int, list[int], list[int], list[int], list[int]]


@pytest.fixture
def directories(make_dataset: MakeDataset) -> tuple[str, ...]:
    """Three datasets of 17, 12 and 5 windows of 8 tokens, so that 400 samples are many epochs of each."""
    lengths = {"web": [30, 7, 61, 44], "code": [50, 50], "math": [13, 33]}
    return tuple(
        str(make_dataset(length, validation=(40, 20), shard_num_tokens=60, name=name, seed=len(name)))
        for name, length in lengths.items()
    )


def config_for(directories: tuple[str, ...], **changes: object) -> DataConfig:
    sources = tuple(Source(dir=name, weight=w) for name, w in zip(directories, (0.5, 0.3, 0.2), strict=True))
    stages = (Stage(from_sample=100, weights=(1, 1, 2)), Stage(from_sample=180, weights=(0, 1, 0)))
    fields = {"seq_len": 8, "batch_size": 16, "micro_batch_size": 4, "skipped": ((20, 33), (120, 121))}
    return DataConfig(sources=sources, stages=stages, **(fields | changes))


def rows(batch: Batch) -> list[Row]:
    fields = (batch.sample_ids_B, batch.tokens_BS, batch.targets_BS, batch.positions_BS, batch.document_ids_BS)
    return list(zip(*(field.tolist() for field in fields), strict=True))


def stream_of(config: DataConfig, start: int, num_samples: int) -> list[Row]:
    data = TokenDataModule(config, SEED, 1)
    data.set_position(start)
    num_batches = num_samples // config.micro_batch_size
    return [row for batch in islice(data.train_dataloader(), num_batches) for row in rows(batch)]


def test_a_sample_is_determined_by_its_index(directories: tuple[str, ...]) -> None:
    config = config_for(directories)
    stream = TrainingStream(config, SEED, config.skipped)
    sample_B, source_B, window_B = stream.locate(np.arange(300))
    remaining = [sample for sample in range(400) if not (20 <= sample < 33 or sample == 120)][:300]
    assert sample_B.tolist() == remaining
    samples = stream_of(config, 0, 300)
    windows = [Windows(Path(name), "train", 8, keep_partial=False) for name in directories]
    for position in range(300):
        arrays = windows[source_B[position]].read(window_B[position : position + 1])
        expected = [int(sample_B[position]), *(array[0].tolist() for array in arrays)]
        assert list(samples[position]) == expected
    assert set(source_B[sample_B >= 180]) == {1}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_workers_and_accumulation_change_no_order(
    directories: tuple[str, ...], world_size: int, accumulation: int, num_workers: int
) -> None:
    batch_size, num_steps = 16, 3
    expected = stream_of(config_for(directories), 0, num_steps * batch_size)
    micro_batch_size = batch_size // world_size // accumulation
    config = config_for(directories, micro_batch_size=micro_batch_size, num_workers=num_workers)
    shares = [
        list(
            islice(training_loader(config, SEED, 0, rank, world_size, skipped=config.skipped), num_steps * accumulation)
        )
        for rank in range(world_size)
    ]
    # The stream's order is rank by rank within each accumulation round.
    actual = [row for batches in zip(*shares, strict=True) for batch in batches for row in rows(batch)]
    assert actual == expected
    assert {batch.num_targets.item() for share in shares for batch in share} == {batch_size * 8}


def test_fifty_interruptions_change_nothing(directories: tuple[str, ...]) -> None:
    config = config_for(directories, batch_size=4)
    whole = stream_of(config, 0, 400)
    generator = random.Random(0)
    for _ in range(50):
        num_steps = generator.randrange(99)
        data = TokenDataModule(config, SEED, 1)
        loader = iter(data.train_dataloader())
        for _ in range(min(num_steps, 2)):
            next(loader)
        data.set_position(4 * num_steps)
        resumed = TokenDataModule(config, SEED, 1)
        resumed.load_state_dict(data.state_dict())
        after = [row for batch in islice(resumed.train_dataloader(), 1) for row in rows(batch)]
        assert after == whole[4 * num_steps : 4 * num_steps + 4]


def test_the_state_is_one_integer_for_each_source_and_the_skipped_ranges(directories: tuple[str, ...]) -> None:
    data = TokenDataModule(config_for(directories), SEED, 1)
    data.set_position(50)
    # Position 50 comes after sample 62: the shares of 63 samples at .5, .3 and .2 are 31.5, 18.9 and 12.6.
    state = data.state_dict()
    assert state["next_sample"] == 50
    assert state["skipped"] == [[20, 33], [120, 121]]
    assert np.abs(np.array(state["source_positions"]) - [31.5, 18.9, 12.6]).max() < 1
    assert sum(state["source_positions"]) == 63


def test_a_range_can_be_skipped_on_resume_but_not_before_the_position(directories: tuple[str, ...]) -> None:
    data = TokenDataModule(config_for(directories), SEED, 1)
    data.set_position(48)
    later = config_for(directories, skipped=((64, 80),))
    resumed = TokenDataModule(later, SEED, 1)
    resumed.load_state_dict(data.state_dict())
    assert resumed.skipped == ((20, 33), (64, 80), (120, 121))
    assert next(iter(resumed.train_dataloader())).sample_ids_B.tolist() == [61, 62, 63, 80]
    early = TokenDataModule(config_for(directories, skipped=((50, 60),)), SEED, 1)
    with pytest.raises(ConfigError, match=r"\(\(50, 60\),\).*|\[\(50, 60\)\].* samples up to 60 have been"):
        early.load_state_dict(data.state_dict())


def test_weights_changed_before_the_position_are_refused(directories: tuple[str, ...]) -> None:
    data = TokenDataModule(config_for(directories), SEED, 1)
    data.set_position(160)
    config = config_for(directories)
    other = DataConfig(
        sources=tuple(Source(dir=name, weight=1) for name in directories),
        **{"seq_len": 8, "batch_size": 16, "micro_batch_size": 4},
    )
    assert config.directories == other.directories
    with pytest.raises(ConfigError, match=r"has used \[.*weights would have used \[.*change them in data\.stages"):
        TokenDataModule(other, SEED, 1).load_state_dict(data.state_dict())


def test_validation_interleaves_sources_by_the_first_weights(directories: tuple[str, ...]) -> None:
    config = config_for(directories, micro_batch_size=2)
    validated = [row for batch in validation_loader(config, 100) for row in rows(batch)]
    windows = [Windows(Path(name), "validation", 8, keep_partial=True) for name in directories]
    lengths = [len(each) for each in windows]
    tokens = {tuple(row[1]) for row in validated}
    first = {tuple(row) for row in windows[0].read(np.arange(lengths[0])).tokens_BS.tolist()}
    # The source of the largest weight runs out first, and then validation ends.
    assert first <= tokens
    assert len(validated) >= 2 * lengths[0] - 1
    assert [row[0] for row in validated] == list(range(len(validated)))


def test_sources_must_share_their_tokenizer(directories: tuple[str, ...]) -> None:
    manifest = Path(directories[1]) / "manifest.json"
    text = manifest.read_text()
    start = text.index('"tokenizer_sha256": "') + len('"tokenizer_sha256": "')
    manifest.write_text(text[:start] + "0" * 64 + text[start + 64 :])
    with pytest.raises(ConfigError, match=r"code was packed by the tokenizer 000000000000, but .*web by \w{12};"):
        TokenDataModule(config_for(directories), SEED, 1)
