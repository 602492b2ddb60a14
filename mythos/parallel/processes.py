"""Process group of a run, and values that its processes share."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.parallel.device import choose_accelerator
from mythos.parallel.launcher import ReportedByRankZero

T = TypeVar("T")


@contextmanager
def process_group(config: RunConfig) -> Iterator[None]:
    """Join the process group of the run and leave it at the end; nothing to do for a single process."""
    if config.cluster.world_size == 1:
        yield
        return
    backend = "gloo"
    if choose_accelerator(config.parallel.device) == "gpu":
        backend = "nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    timeout = timedelta(seconds=config.cluster.timeout_seconds)
    with _default_timeout(timeout):
        dist.init_process_group(backend, timeout=timeout)
        try:
            yield
        finally:
            dist.destroy_process_group()


@contextmanager
def _default_timeout(timeout: timedelta) -> Iterator[None]:
    """Set the timeout of groups created without one, as DeepSpeed creates its own; torch's default is 30 minutes."""
    defaults = distributed_c10d.default_pg_timeout, distributed_c10d.default_pg_nccl_timeout
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = timeout
    try:
        yield
    finally:
        distributed_c10d.default_pg_timeout, distributed_c10d.default_pg_nccl_timeout = defaults


def on_first_rank(function: Callable[[], T]) -> T:
    """Call ``function`` on rank 0 and give every rank its result.

    Raises:
        ConfigError: on every rank, if rank 0 raised it.
    """
    if not dist.is_initialized():
        return function()
    answer: list[T | ConfigError | None] = [None]
    if dist.get_rank() == 0:
        try:
            answer[0] = function()
        except ConfigError as error:
            answer[0] = error
    dist.broadcast_object_list(answer)
    if isinstance(answer[0], ConfigError):
        raise answer[0] if dist.get_rank() == 0 else ReportedByRankZero(*answer[0].args)
    return answer[0]  # type: ignore[return-value]


def of_every_rank(value: T) -> list[T]:
    """Return the values of all ranks, in rank order."""
    if not dist.is_initialized():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


_LOST_PEER_MESSAGES = ("timed out", "timeout", "connection closed by peer", "connection reset by peer", "broken pipe")


def lost_peer(error: RuntimeError) -> str | None:
    """Return the message of a collective whose peer is gone or unreachable; None for any other error."""
    text = " ".join(str(error).split())
    if isinstance(error, dist.DistError) or any(message in text.lower() for message in _LOST_PEER_MESSAGES):
        return text[:200]
    return None
