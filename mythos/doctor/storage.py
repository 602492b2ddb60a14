"""The disk that a run's directory lies on: speed, time of a flush, room for the checkpoints that are kept."""

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
"""Every file that a run replaces is flushed to disk; a step's records must not wait long for it."""


class DiskSpeed(NamedTuple):
    """What one process reached."""

    bytes_per_second: float
    """Of one stream, the flush at its end included."""
    flush_seconds: float
    """Median time to have one small write reach the disk."""


def measure(directory: Path) -> DiskSpeed:
    """Write 128 MiB of noise and a few small pieces into a file without a lasting name.

    Raises:
        OSError: the disk refuses.
    """
    block = os.urandom(_BLOCK_BYTES)  # disks that compress must not gain by it
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
    """Speed and room of ``run.dir``; of the working directory where there is no run."""
    path = Path.cwd() if config is None else Path(config.run.dir) / config.run.name
    place = path if path.is_dir() else nearest(path)
    try:
        speed = measure(place)
    except OSError as error:
        advice = "choose another run.dir"
        return [Finding(check="disk", status="fails", found=f"{place}: {error.strerror}", advice=advice)]
    return [_speed(place, speed, config), *([] if config is None else [room(config, shutil.disk_usage(place).free)])]


def room(config: RunConfig, free_bytes: int) -> Finding:
    """Whether the checkpoints that the run keeps, and the one being written, have room."""
    num_there = len(store.checkpoints(Path(config.run.dir) / config.run.name / store.FOLDER))
    one, num_kept = checkpoint_bytes(config), num_checkpoints(config)
    needed = one * max(0, num_kept + 1 - num_there)
    found = f"{free_bytes / 1e9:,.1f} GB free"
    expected = f"{needed / 1e9:,.1f} GB for {num_kept} checkpoints of {one / 1e9:,.2f} GB and one on its way"
    if num_there:
        expected += f", of which {num_there} are there"
    if free_bytes < needed:
        advice = "lower run.checkpoint.keep_last, keep_best or the number of keep_every, or choose another run.dir"
        return Finding(check="disk space", status="fails", found=found, expected=expected, advice=advice)
    return Finding(check="disk space", status="ok", found=found, expected=expected)


def checkpoint_bytes(config: RunConfig) -> int:
    """Of one checkpoint: weights and the optimiser's moments in fp32. Buffers, step counts and JSON are left out."""
    state = state_bytes(config.model, config.optim)
    return state.weights + state.optimizer


def num_checkpoints(config: RunConfig) -> int:
    """How many a run keeps at most."""
    settings, num_steps = config.run.checkpoint, config.run.num_steps
    milestones = 0 if settings.keep_every is None else num_steps // settings.keep_every
    return min(settings.keep_last + settings.keep_best + milestones, math.ceil(num_steps / settings.every))


def _speed(place: Path, speed: DiskSpeed, config: RunConfig | None) -> Finding:
    found = f"{speed.bytes_per_second / 1e6:,.0f} MB/s and {speed.flush_seconds * 1e3:.1f} ms a flush in {place}"
    if config is not None:
        seconds = checkpoint_bytes(config) / config.cluster.num_nodes / speed.bytes_per_second
        found += f"; a checkpoint takes one stream of each node {seconds:,.1f} s"
    is_slow = speed.bytes_per_second < _SLOW_BYTES_PER_SECOND or speed.flush_seconds > _SLOW_FLUSH_SECONDS
    expected = f"at least {_SLOW_BYTES_PER_SECOND / 1e6:.0f} MB/s and at most {_SLOW_FLUSH_SECONDS * 1e3:.0f} ms"
    if is_slow:
        advice = "choose a run.dir on a faster disk, or save less often"
        return Finding(check="disk", status="warning", found=found, expected=expected, advice=advice)
    return Finding(check="disk", status="ok", found=found)
