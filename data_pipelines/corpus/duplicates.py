"""Remove exact and near duplicates with datatrove's blocks: write signatures, match and cluster them, keep one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig

from data_pipelines.corpus.config import MinHash
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.shards import read_shard, shard_path, write_shard
from data_pipelines.corpus.words import WORDS

_HASH: Final = HashConfig(hash_fc="sha1")
"""SHA-1, since datatrove's other hash passes str to xxhash, which accepts only bytes from version 4 on."""
_SHINGLES_AT_ONCE: Final = 4096


def sign_exact(shards: Path, output: Path, index: int) -> Ledger:
    """Hash the documents of one shard."""
    block = ExactDedupSignature(str(output), _exact_config())
    block.run(read_shard(shard_path(shards, index)), rank=index)
    return Ledger()


def find_exact(signatures: Path, output: Path, index: int) -> Ledger:
    """List the documents that repeat an earlier one, by shard; memory holds one signature per shard."""
    ExactFindDedups(str(signatures), str(output), _exact_config()).run(None, rank=index)
    return Ledger()


def drop_exact(shards: Path, matches: Path, output: Path, index: int) -> Ledger:
    """Write one shard without the listed documents."""
    block = ExactDedupFilter(str(matches), _exact_config())
    return _drop(shards, block, "exact duplicate", output, index)


def sign_near(shards: Path, config: MinHash, output: Path, index: int) -> Ledger:
    """Write MinHash signatures of one shard's documents; those shorter than one shingle get none."""
    block = _BoundedSignature(str(output), _near_config(config), language=WORDS)
    block.run(read_shard(shard_path(shards, index)), rank=index)
    return Ledger()


def match_near(signatures: Path, config: MinHash, output: Path, index: int) -> Ledger:
    """List the pairs of documents that agree in bucket ``index``."""
    block = MinhashDedupBuckets(str(signatures), str(output), config=_near_config(config))
    block.run(None, rank=index, world_size=config.num_buckets)
    return Ledger()


def cluster_near(pairs: Path, config: MinHash, output: Path, index: int) -> Ledger:
    """List all but one document of each cluster; memory grows only with the number of duplicates."""
    MinhashDedupCluster(str(pairs), str(output), config=_near_config(config)).run(None, index, 1)
    return Ledger()


def drop_near(shards: Path, clusters: Path, output: Path, index: int) -> Ledger:
    """Write one shard without the listed documents."""
    return _drop(shards, MinhashDedupFilter(str(clusters)), "near duplicate", output, index)


class _BoundedSignature(MinhashDedupSignature):
    """Computes the same signature from a few shingles at a time; a book would otherwise need gigabytes."""

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        sign = super().get_signature
        starts = range(0, len(shingles), _SHINGLES_AT_ONCE)
        parts = [np.array(sign(shingles[start : start + _SHINGLES_AT_ONCE]), dtype=np.uint64) for start in starts]
        return np.minimum.reduce(parts).tolist()


def _text(document: Document) -> str:
    return document.text


def _exact_config() -> ExactDedupConfig:
    return ExactDedupConfig(content_getter=_text, hash_config=_HASH)


def _near_config(config: MinHash) -> MinhashConfig:
    return MinhashConfig(
        n_grams=config.shingle_words,
        num_buckets=config.num_buckets,
        hashes_per_bucket=config.hashes_per_bucket,
        hash_config=_HASH,
    )


def _drop(shards: Path, block: ExactDedupFilter | MinhashDedupFilter, reason: str, output: Path, index: int) -> Ledger:
    ledger = Ledger()
    previous: list[Document] = []

    def inputs() -> Iterator[Document]:
        for document in ledger.count_read(read_shard(shard_path(shards, index))):
            # A block that requests the next document without having yielded this one has dropped it.
            previous.append(document)
            yield document
            if previous:
                ledger.drop(reason, previous.pop())

    def outputs() -> Iterator[Document]:
        for document in block.run(inputs(), rank=index):
            previous.clear()
            yield document

    write_shard(shard_path(output, index), ledger.count_kept(outputs()))
    return ledger
