"""Resources of a node: open files, shared memory, host memory, folders for compiled code."""

import getpass
import os
import resource
import shutil
import stat
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from mythos.account.estimate import POLICIES, memory, with_policy
from mythos.account.parameters import count_parameters
from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.data.manifest import read_manifest
from mythos.doctor.finding import Finding

_OTHER_FILES: Final = 256
"""Libraries, logs, pipes and sockets of one process besides data and peers, a generous assumption."""
_PROCESS_BYTES: Final = 2**30
"""Host memory of one rank without model and data: interpreter, torch, CUDA's libraries; an assumption."""
_PREFETCHED: Final = 2
"""Batches that each worker of torch's DataLoader prefetches, its default."""
_INT64_PER_TOKEN: Final = 5
"""int64 elements for each token of a batch: tokens, targets, positions, documents, and a reserve for the rest."""
_SHARED_BYTES: Final = 2**28
"""Shared memory of NCCL between the devices of a node, an assumption; the default of containers is 64 MiB."""
_CGROUP: Final = Path("/sys/fs/cgroup")


def open_files(config: RunConfig | None) -> Finding:
    """Compare ``ulimit -n`` with the shards that a process maps (each map keeps a descriptor) and its peers."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OTHER_FILES + (0 if config is None else _num_mapped(config) + config.cluster.world_size)
    found = "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,} for each process"
    if limit != resource.RLIM_INFINITY and limit < needed:
        advice = f"ulimit -n {needed}"
        return Finding(check="open files", status="fails", found=found, expected=f"{needed:,}", advice=advice)
    return Finding(check="open files", status="ok", found=found, expected=f"at least {needed:,}")


def shared_memory(config: RunConfig | None, path: Path = Path("/dev/shm")) -> Finding:
    """Compare ``/dev/shm`` with the needs of NCCL and of the data workers of a node."""
    if not path.is_dir():
        advice = "mount a tmpfs there; data workers and NCCL need it"
        return Finding(check="shared memory", status="warning", found=f"no {path}", advice=advice)
    free, needed = shutil.disk_usage(path).free, 0 if config is None else needed_shared_bytes(config)
    found = f"{_gib(free)} free in {path}"
    if free < needed:
        advice = "docker run --shm-size, cluster.shared_memory on Kubernetes, or fewer data.num_workers"
        return Finding(check="shared memory", status="fails", found=found, expected=_gib(needed), advice=advice)
    return Finding(
        check="shared memory", status="ok", found=found, expected=f"at least {_gib(needed)}" if needed else ""
    )


def needed_shared_bytes(config: RunConfig) -> int:
    """Shared memory of a node in bytes: batches in transit from workers to ranks, and NCCL's buffers."""
    data, cluster = config.data, config.cluster
    batch = 8 * _INT64_PER_TOKEN * data.micro_batch_size * data.seq_len
    batches = batch * data.num_workers * _PREFETCHED * cluster.num_devices
    return batches + (_SHARED_BYTES if cluster.num_devices > 1 else 0)


def host_memory(config: RunConfig | None, on_cpu: bool) -> Finding:
    """Compare the available memory of the node with the model that each rank builds there before it moves."""
    available = available_bytes()
    found = f"{_gib(available)} available"
    if config is None:
        return Finding(check="host memory", status="ok", found=found)
    needed = needed_host_bytes(config, on_cpu)
    expected = f"{_gib(needed)} for {config.cluster.num_devices} ranks"
    if needed > available:
        advice = (
            "fewer ranks on a node"
            if on_cpu
            else "fewer ranks on a node or a node with more memory; each rank builds all weights in fp32"
        )
        return Finding(check="host memory", status="fails", found=found, expected=expected, advice=advice)
    if needed > 0.8 * available:
        advice = "close to the limit; end other processes"
        return Finding(check="host memory", status="warning", found=found, expected=expected, advice=advice)
    return Finding(check="host memory", status="ok", found=found, expected=expected)


def needed_host_bytes(config: RunConfig, on_cpu: bool) -> int:
    """Host memory of a node in bytes, for all ranks.

    A rank needs all weights in fp32 while it builds them; later it needs the offloaded state, or on a CPU all memory
    of the training.
    """
    resolved = with_policy(config, POLICIES[0]) if config.parallel.remat == "auto" else config
    later = memory(resolved, has_fused_experts=False)
    # A page of host memory is allocated when it is first written; most pages of DeepSpeed's large buckets never are.
    training = later.standing + max(later.gathered + later.activations, later.optimizer_step)
    rank = max(4 * count_parameters(config.model, config.halting).total, training if on_cpu else later.host)
    return config.cluster.num_devices * (rank + _PROCESS_BYTES)


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Memory in bytes that this process can still allocate, within the limit of its control group."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = ((cgroup / f"memory.{name}").read_text(encoding="utf-8").strip() for name in ("max", "current"))
    except OSError:
        return available
    return available if limit == "max" else min(available, max(0, int(limit) - int(used)))


_CACHES: Final = {
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "Triton's cache",
    "TORCHINDUCTOR_CACHE_DIR": "compiled blocks",
    "QUACK_CACHE_DIR": "quack's cache",
}


def caches() -> list[Finding]:
    """Check the folders whose content is run as code: they must be writable by this user only."""
    home = Path.home()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, common in containers
        user = str(os.getuid())
    folders = {
        "TORCH_EXTENSIONS_DIR": home / ".cache" / "torch_extensions",
        "TRITON_CACHE_DIR": home / ".triton" / "cache",
        "TORCHINDUCTOR_CACHE_DIR": Path(tempfile.gettempdir()) / f"torchinductor_{user}",
    }
    if find_spec("quack") is not None:
        folders["QUACK_CACHE_DIR"] = Path(tempfile.gettempdir()) / user / "quack_cache"
    return [cache(name, Path(os.environ.get(name) or default)) for name, default in folders.items()]


def cache(variable: str, path: Path) -> Finding:
    """Check one of these folders, or the folder in which it would be created."""
    check = _CACHES[variable]
    existing = path if path.exists() else nearest(path)
    advice = f"set {variable} to a folder of your own on this node's disk"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        found = f"{existing} cannot be written"
        return Finding(check=check, status="fails", found=found, expected="a writable folder", advice=advice)
    parent, is_open = existing, False
    if path.exists():
        parent = path.parent
        is_open = _owner(path) != os.getuid() or bool(path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    if is_open or _owner(parent) not in (0, os.getuid()):  # the owner of a folder may replace its contents
        found = f"other users may write to {path}, whose content is run as code"
        return Finding(check=check, status="fails", found=found, expected="a folder of this user only", advice=advice)
    return Finding(check=check, status="ok", found=f"{path}{'' if path.exists() else ' can be created'}")


def nearest(path: Path) -> Path:
    """The closest folder above a path that exists."""
    return next(parent for parent in path.absolute().parents if parent.exists())


def _owner(path: Path) -> int:
    return path.stat().st_uid


def _num_mapped(config: RunConfig) -> int:
    """Number of files of all shards of all sources; 0 if the data cannot be read, which another check reports."""
    try:
        manifests = [read_manifest(Path(directory)) for directory in config.data.directories]
    except ConfigError:
        return 0
    return sum(len(split.files) for manifest in manifests for split in manifest.splits.values())


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB"
