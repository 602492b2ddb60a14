"""The disk of a run's directory: speed, time of a flush, room for the checkpoints that are kept."""

import math
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from mythos.account.memory import state_bytes
from mythos.checkpoint import store
from mythos.config.run import RunConfig
from mythos.doctor.finding import Finding
from mythos.doctor.host import nearest

_BLOCK_BYTES: Final = 8 * 2**20
_NUM_BLOCKS: Final = 16
_NUM_FLUSHES: Final = 5
_SLOW_BYTES_PER_SECOND: Final = 100e6
_SLOW_FLUSH_SECONDS: Final = 0.5
"""Every file that a run replaces is flushed to disk; logging must not wait long for it."""


class DiskSpeed(NamedTuple):
    """The speed of one process."""

    bytes_per_second: float
    """Bandwidth of one stream, including the flush at its end."""
    flush_seconds: float
    """Median time to flush one small write to disk."""


def measure(directory: Path) -> DiskSpeed:
    """Write 128 MiB of random bytes and a few small blocks to an unnamed temporary file.

    Raises:
        OSError: writing fails.
    """
    block = os.urandom(_BLOCK_BYTES)  # incompressible, for disks that compress
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        start = time.perf_counter()
        for _ in range(_NUM_BLOCKS):
            file.write(block)
        os.fsync(file.fileno())
        seconds = time.perf_counter() - start
        flushes = []
        for _ in range(_NUM_FLUSHES):
            start = time.perf_counter()
            file.write(block[:4096])
            os.fsync(file.fileno())
            flushes.append(time.perf_counter() - start)
    return DiskSpeed(_NUM_BLOCKS * _BLOCK_BYTES / seconds, statistics.median(flushes))


def disk(config: RunConfig | None) -> list[Finding]:
    """Check speed and room of ``run.dir``, or of the working directory without a run."""
    path = Path.cwd() if config is None else Path(config.run.dir) / config.run.name
    folder = path if path.is_dir() else nearest(path)
    try:
        speed = measure(folder)
    except OSError as error:
        advice = "choose another run.dir"
        return [Finding(check="disk", status="fails", found=f"{folder}: {error.strerror}", advice=advice)]
    return [_speed(folder, speed, config), *([] if config is None else [room(config, shutil.disk_usage(folder).free)])]


def room(config: RunConfig, free_bytes: int) -> Finding:
    """Check that there is room for the checkpoints that the run keeps and the one being written."""
    num_existing = len(store.checkpoints(Path(config.run.dir) / config.run.name / store.FOLDER))
    one, num_kept = checkpoint_bytes(config), num_checkpoints(config)
    needed = one * max(0, num_kept + 1 - num_existing)
    found = f"{free_bytes / 1e9:,.1f} GB free"
    expected = f"{needed / 1e9:,.1f} GB for {num_kept} checkpoints of {one / 1e9:,.2f} GB and one being written"
    if num_existing:
        expected += f", of which {num_existing} exist"
    if free_bytes < needed:
        advice = "lower run.checkpoint.keep_last, keep_best or the number of keep_every, or choose another run.dir"
        return Finding(check="disk space", status="fails", found=found, expected=expected, advice=advice)
    return Finding(check="disk space", status="ok", found=found, expected=expected)


def checkpoint_bytes(config: RunConfig) -> int:
    """Size of one checkpoint: weights and the optimiser's moments in fp32, without buffers, step counts and JSON."""
    state = state_bytes(config.model, config.optim, config.halting)
    return state.weights + state.optimizer


def num_checkpoints(config: RunConfig) -> int:
    """Maximum number of checkpoints that a run keeps."""
    settings, num_steps = config.run.checkpoint, config.run.num_steps
    milestones = 0 if settings.keep_every is None else num_steps // settings.keep_every
    return min(settings.keep_last + settings.keep_best + milestones, math.ceil(num_steps / settings.every))


def _speed(folder: Path, speed: DiskSpeed, config: RunConfig | None) -> Finding:
    found = f"{speed.bytes_per_second / 1e6:,.0f} MB/s and {speed.flush_seconds * 1e3:.1f} ms per flush in {folder}"
    if config is not None:
        seconds = checkpoint_bytes(config) / config.cluster.num_nodes / speed.bytes_per_second
        found += f"; a checkpoint takes {seconds:,.1f} s with one stream per node"
    is_slow = speed.bytes_per_second < _SLOW_BYTES_PER_SECOND or speed.flush_seconds > _SLOW_FLUSH_SECONDS
    expected = f"at least {_SLOW_BYTES_PER_SECOND / 1e6:.0f} MB/s and at most {_SLOW_FLUSH_SECONDS * 1e3:.0f} ms"
    if is_slow:
        advice = "choose a run.dir on a faster disk, or save less often"
        return Finding(check="disk", status="warning", found=found, expected=expected, advice=advice)
    return Finding(check="disk", status="ok", found=found)
