"""Threads of the CPU: how many this process takes beside others, and how those wait that have nothing to do."""

import os
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

_VARIABLE: Final = "OMP_NUM_THREADS"
_NUM_SAMPLES: Final = 10
_SAMPLE_SECONDS: Final = 0.02


class Threads(NamedTuple):
    """A number of threads, and what the user should know about it."""

    num_threads: int
    sentence: str | None = None


def wait_passively() -> None:
    """Let idle threads sleep; call it before torch is imported. Variables that the user has set stay as they are.

    By default they spin, and where other processes need the CPUs, a step takes many times as long. The first variable
    is read by the libgomp of torch's Linux packages, the second one by Intel's and LLVM's library.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def take_threads(key: str = _VARIABLE, before: int | None = None) -> None:
    """Lower torch's number of threads to what the CPUs have free, and print a line on stderr if others are busy.

    Does nothing where ``OMP_NUM_THREADS`` is set, as launchers do.

    Args:
        key: what the line names for another number.
        before: number with which the run has begun on this machine.
    """
    if _VARIABLE in os.environ:
        return
    import torch

    most = torch.get_num_threads()
    chosen = Threads(most) if most == 1 else choose_threads(most, os.cpu_count() or 1, cpu_quota(), load(), key, before)
    torch.set_num_threads(chosen.num_threads)
    if chosen.sentence is not None:
        print(chosen.sentence, file=sys.stderr, flush=True)


def choose_threads(
    most: int, num_cpus: int, quota: float | None, load: float, key: str, before: int | None = None
) -> Threads:
    """Return how many threads to take.

    Args:
        most: torch's default, which counts the CPUs of the process.
        num_cpus: CPUs of the machine, to which ``load`` belongs.
        quota: CPUs that the cgroup grants; None for no limit.
        load: CPUs that other processes keep busy.
        key: what the sentence names for another number.
        before: number with which the run has begun; rounding depends on it, so it stays.
    """
    granted = most if quota is None else max(1, min(most, int(quota)))
    count = max(1, min(granted, round(num_cpus - load)))
    busy = f"other processes keep {min(load, num_cpus):.1f} of {num_cpus} CPUs busy"
    if before is not None:
        slow = f"threads: {before} as before, so that the run continues bitwise, but {busy}; {key}={count} is faster."
        return Threads(before, slow if count < min(before, granted) else None)
    fewer = f"threads: {count} of {granted}, because {busy}; {key} sets another number."
    return Threads(count, fewer if count < granted else None)


def load() -> float:
    """Return how many CPUs of the machine other processes keep busy.

    The load of the last minute also counts work that has ended, such as the packing of the data, so what runs now is
    an upper bound.
    """
    try:
        average = os.getloadavg()[0]
        samples = []
        for _ in range(_NUM_SAMPLES):
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
            samples.append(int(running) - 1)  # without this process
            time.sleep(_SAMPLE_SECONDS)
    except (OSError, ValueError, IndexError):  # no Linux
        return 0.0
    return max(0.0, min(average, sum(samples) / _NUM_SAMPLES))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPUs that the cgroups of this process grant it on average, as a container has them; None for all.

    Args:
        root: folder that holds ``proc`` and ``sys``.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        folder = top / path.strip("/")
        for level in (folder, *folder.parents):
            if level.is_relative_to(top) and (quota := _quota(level)) is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    """Return the quota of one cgroup, of version 2 or 1, in CPUs; None where it has none."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
