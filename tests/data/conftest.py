"""Small packed datasets of random tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mythos.data.manifest import SEPARATOR, TOKENIZER_FILE, Manifest, write_manifest
from mythos.data.shards import SplitWriter
from mythos.files import sha256

MakeDataset = Callable[..., Path]


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Write a dataset whose documents have the given lengths, with a tokenizer of single bytes."""

    def make(
        train: list[int],
        validation: tuple[int, ...] = (5, 6),
        shard_num_tokens: int = 10**6,
        dtype: str = "uint16",
        name: str = "dataset",
        seed: int = 0,
    ) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        alphabet = [SEPARATOR, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, []))
        tokenizer.add_special_tokens([SEPARATOR])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(directory / TOKENIZER_FILE))
        generator = np.random.default_rng(seed)
        splits = {}
        for split, lengths in (("train", train), ("validation", validation)):
            writer = SplitWriter(directory, split, dtype, 0, shard_num_tokens)
            for length in lengths:
                writer.add(generator.integers(1, 95, length).tolist(), length)
            splits[split] = writer.finish()
        manifest = Manifest(
            dtype=dtype,
            vocab_size=257,
            separator_id=0,
            tokenizer_sha256=sha256(directory / TOKENIZER_FILE),
            inputs_sha256="none",
            splits=splits,
        )
        write_manifest(directory, manifest)
        return directory

    return make
