"""Disk faults of a run: the disk fills up during a save; a shard of the data is truncated."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mythos.checkpoint.manifest import verify
from mythos.checkpoint.store import checkpoints
from mythos.cli.main import main

OPTIONS = """train model=debug optim=adamw parallel.device=cpu data.seq_len=32 data.batch_size=4 data.micro_batch_size=2
depth.mean=2 run.num_steps=9 run.validation.every=50 run.validation.num_batches=2 run.checkpoint.every=3
tracking.log_every=1 schedule.num_warmup_steps=2 run.name=run""".split()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system whose size can be changed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints(run / "checkpoints")]


def resize(disk: Path, num_bytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={num_bytes}", str(disk)], check=True)


def test_a_full_disk_loses_no_checkpoint_and_ends_with_one_sentence(packed: Path, small_disk: Path, capsys) -> None:
    """The disk has room for the first checkpoint and half of the second."""
    run = small_disk / "run"
    options = [*OPTIONS, f"data.dir={packed}", f"run.dir={small_disk}", "run.checkpoint.keep_last=1", "resume=auto"]
    assert main([*options, "run.num_steps=3"]) == 0
    used = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    resize(small_disk, used * 3 // 2)
    assert main(options) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"mythos: {run}/checkpoints/.step-00000006.tmp: rank 0 cannot write its part of step 6")
    assert "the checkpoint before it is unharmed" in message
    assert steps(run) == [3]
    assert verify(run / "checkpoints" / "step-00000003").step == 3

    assert shutil.disk_usage(small_disk).free < 4096, "the part that was written fills the disk"
    assert main(options) == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert steps(run) == [3]

    resize(small_disk, 8 * used)
    assert main(options) == 0
    assert steps(run) == [9]


def test_a_truncated_shard_ends_with_one_sentence(packed: Path, tmp_path: Path, capsys) -> None:
    data = tmp_path / "packed"
    shutil.copytree(packed, data)
    options = [*OPTIONS, f"data.dir={data}", f"run.dir={tmp_path}"]
    assert main([*options, "run.num_steps=6"]) == 0
    shard = max(data.glob("train-*.tokens"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1000])
    capsys.readouterr()
    assert main([*options, "resume=auto"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("mythos: ")
    assert shard.name in message
    assert steps(tmp_path / "run") == [3, 6]
