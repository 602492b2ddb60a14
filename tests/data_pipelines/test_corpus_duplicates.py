import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.dedup import MinhashDedupSignature

from data_pipelines.corpus import duplicates
from data_pipelines.corpus.config import MinHash
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.shards import read_shard, shard_path, write_shard

VOCABULARY = ["".join(letters) for letters in itertools.product("bdgkp", "aeiou", "lmnrst", "aeu")]


def words(seed: int, number: int = 200) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=number)


def write(directory: Path, shards: list[list[str]]) -> None:
    directory.mkdir()
    for index, texts in enumerate(shards):
        documents = [
            Document(text=text, id=f"{index}-{number}", metadata={"source": "s", "licence": "MIT"})
            for number, text in enumerate(texts)
        ]
        write_shard(shard_path(directory, index), documents)


def folders(tmp_path: Path, *names: str) -> list[Path]:
    for name in names:
        (tmp_path / name).mkdir()
    return [tmp_path / name for name in names]


def ids(directory: Path, number: int) -> list[str]:
    return [document.id for index in range(number) for document in read_shard(shard_path(directory, index))]


def test_one_of_each_exact_duplicate_is_kept_across_shards(tmp_path: Path) -> None:
    write(tmp_path / "in", [["a", "b", "a"], [], ["c", "b", "d", "a"]])
    signatures, matches, out = folders(tmp_path, "signatures", "matches", "out")
    for index in range(3):
        duplicates.sign_exact(tmp_path / "in", signatures, index)
    duplicates.find_exact(signatures, matches, 0)
    total = Ledger()
    for index in range(3):
        total.add(duplicates.drop_exact(tmp_path / "in", matches, out, index))
    texts = [document.text for index in range(3) for document in read_shard(shard_path(out, index))]
    assert sorted(texts) == ["a", "b", "c", "d"]
    summary = total.summary()
    assert summary["dropped"] == {"exact duplicate": {"documents": 3, "bytes": 3}}
    assert summary["read"]["documents"] == 7
    assert summary["kept"]["documents"] == 4


def test_only_near_duplicates_are_dropped(tmp_path: Path) -> None:
    changed = words(1)
    changed[100] = "changed"
    texts = [words(1), words(2), words(3)], [words(4), changed], [words(5, 3), words(5, 3)]
    write(tmp_path / "in", [[" ".join(text) for text in shard] for shard in texts])
    config = MinHash()
    signatures, pairs, clusters, out = folders(tmp_path, "signatures", "pairs", "clusters", "out")
    for index in range(3):
        duplicates.sign_near(tmp_path / "in", config, signatures, index)
    for index in range(config.num_buckets):
        duplicates.match_near(signatures, config, pairs, index)
    duplicates.cluster_near(pairs, config, clusters, 0)
    total = Ledger()
    for index in range(3):
        total.add(duplicates.drop_near(tmp_path / "in", clusters, out, index))
    kept = ids(out, 3)
    assert len({"0-0", "1-1"} & set(kept)) == 1
    # Three words make no shingle of five: short texts are only compared by the exact step.
    assert set(kept) >= {"0-1", "0-2", "1-0", "2-0", "2-1"}
    dropped = total.summary()["dropped"]["near duplicate"]
    assert dropped["documents"] == 1
    assert dropped["bytes"] in (len(" ".join(words(1))), len(" ".join(changed)))


def test_the_bounded_signature_equals_that_of_datatrove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_SHINGLES_AT_ONCE", 7)
    config = duplicates._near_config(MinHash())
    bounded = duplicates._BoundedSignature(str(tmp_path), config, language=duplicates.WORDS)
    whole = MinhashDedupSignature(str(tmp_path), config, language=duplicates.WORDS)
    shingles = bounded.get_shingles(" ".join(words(0)))
    assert shingles.shape == (196, 1)
    np.testing.assert_array_equal(bounded.get_signature(shingles), whole.get_signature(shingles))
