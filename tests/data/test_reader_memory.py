"""Memory of the reader does not grow with the corpus."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from mythos.data.manifest import Manifest, Shard, Split, write_manifest

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from mythos.data.stream import TrainingStream
from mythos.config.data import DataConfig

def memory_kib():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return [int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon")]

config = DataConfig(dir=sys.argv[1], seq_len=2048, batch_size=16, micro_batch_size=16)
stream = TrainingStream(config, 0)
stream.read(np.arange(16))
before = memory_kib()
most = 0
for first in range(16, 3000, 16):
    stream.read(np.arange(first, first + 16))
    most = max(most, memory_kib()[0])
print(most - before[0], memory_kib()[1] - before[1])
"""


def write_sparse(directory: Path, num_tokens: int) -> None:
    """Write a sparse shard of zeros, with a document every 1,000 tokens in the first 10 million."""
    starts = b"".join(start.to_bytes(8, "little") for start in range(0, min(num_tokens, 10**7), 1000))
    directory.mkdir()
    (directory / "train-00000.documents").write_bytes(starts)
    with (directory / "train-00000.tokens").open("wb") as file:
        file.truncate(2 * num_tokens)
    shard = Shard(
        tokens_file="train-00000.tokens",
        tokens_sha256="unread",
        documents_file="train-00000.documents",
        documents_sha256=hashlib.sha256(starts).hexdigest(),
        num_tokens=num_tokens,
        num_documents=len(starts) // 8,
        num_bytes=0,
    )
    manifest = Manifest(
        dtype="uint16",
        vocab_size=300,
        separator_id=0,
        tokenizer_sha256="none",
        inputs_sha256="none",
        splits={"train": Split(shards=(shard,))},
    )
    write_manifest(directory, manifest)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_depend_on_the_size_of_the_corpus(tmp_path: Path) -> None:
    growth_mib = {}
    for num_tokens in (10**7, 10**9):
        write_sparse(tmp_path / str(num_tokens), num_tokens)
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / str(num_tokens))]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        growth_mib[num_tokens] = [int(kib) / 1024 for kib in result.stdout.split()]
    # 3,000 windows are 12 MiB of tokens; around each, the kernel maps up to 64 KiB until the reader releases them.
    (small, _), (large, anonymous) = growth_mib.values()
    assert large < 48
    assert large < small + 40
    assert anonymous < 8
