"""NVIDIA devices as reported by nvidia-smi, without opening a CUDA context."""

import subprocess
from typing import Final, NamedTuple

import torch

from mythos.config.run import RunConfig
from mythos.doctor.finding import Finding

_QUERY: Final = ("uuid", "name", "driver_version", "memory.used", "memory.total", "compute_mode")
_IDLE_BYTES: Final = 2**30
"""Memory in use on an idle device; drivers use several hundred MiB themselves."""


class Gpu(NamedTuple):
    """One device."""

    uuid: str
    name: str
    driver: str
    used_bytes: int
    """Memory used by all processes of the machine."""
    total_bytes: int
    compute_mode: str
    """``Default``, ``Exclusive_Process`` or ``Prohibited``."""


def list_gpus() -> list[Gpu]:
    """The devices that this process may use; empty without a driver."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    gpus = parse(done.stdout)
    visible = {f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in range(torch.cuda.device_count())}
    return [gpu for gpu in gpus if gpu.uuid in visible] or gpus


def parse(text: str) -> list[Gpu]:
    """Parse the lines of nvidia-smi; converts MiB to bytes."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    return [
        Gpu(uuid, name, driver, _bytes(used), _bytes(total), mode) for uuid, name, driver, used, total, mode in rows
    ]


def devices(config: RunConfig | None, gpus: list[Gpu]) -> list[Finding]:
    """Check that the run's devices exist, are idle, and allow computation."""
    needs_gpu = config is not None and config.parallel.device == "cuda"
    if config is not None and config.parallel.device == "cpu":
        return [Finding(check="devices", status="ok", found="the CPU, as parallel.device specifies")]
    num_needed = config.cluster.num_devices if config is not None else 1
    if not torch.cuda.is_available():
        if not gpus and not needs_gpu:
            return [Finding(check="devices", status="ok", found="no GPU; runs use the CPU")]
        found = f"{len(gpus)} GPUs, of which torch can use none"
        advice = "see CUDA and driver above, and CUDA_VISIBLE_DEVICES" if gpus else "set parallel.device=cpu"
        return [Finding(check="devices", status="fails", found=found, expected=f"{num_needed}", advice=advice)]
    num_usable = torch.cuda.device_count()
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(num_usable)}))
    found = f"{num_usable} x {names}"
    if num_usable < num_needed:
        advice = f"set cluster.num_devices={num_usable}, or see CUDA_VISIBLE_DEVICES"
        return [
            Finding(check="devices", status="fails", found=found, expected=f"{num_needed} on each node", advice=advice)
        ]
    rest = [memory_in_use(gpus), compute_mode(gpus)] if gpus else []
    return [Finding(check="devices", status="ok", found=found), *rest]


def memory_in_use(gpus: list[Gpu]) -> Finding:
    """Check whether other processes use memory of the devices."""
    fullest = max(gpus, key=lambda gpu: gpu.used_bytes)
    found = f"{fullest.used_bytes / 2**30:.1f} of {fullest.total_bytes / 2**30:.0f} GiB in use on the fullest device"
    if fullest.used_bytes <= _IDLE_BYTES:
        return Finding(check="device memory", status="ok", found=found)
    advice = f"another process uses {fullest.uuid}; nvidia-smi lists it"
    return Finding(check="device memory", status="warning", found=found, expected="at most 1 GiB", advice=advice)


def compute_mode(gpus: list[Gpu]) -> Finding:
    """Check that the driver allows processes to compute."""
    modes = sorted({gpu.compute_mode for gpu in gpus})
    if "Prohibited" in modes:
        advice = "sudo nvidia-smi --compute-mode=0"
        return Finding(check="compute mode", status="fails", found=", ".join(modes), expected="Default", advice=advice)
    return Finding(check="compute mode", status="ok", found=", ".join(modes))


def _bytes(mebibytes: str) -> int:
    """MiB as bytes; 0 for ``[N/A]``, which for instance devices that share the host's memory report."""
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else 0
