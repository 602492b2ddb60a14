"""NVIDIA's devices, as the driver's own tool describes them: no context is opened on any."""

import subprocess
from typing import Final, NamedTuple

import torch

from mythos.config.run import RunConfig
from mythos.doctor.finding import Finding

_QUERY: Final = ("uuid", "name", "driver_version", "memory.used", "memory.total", "compute_mode")
_IDLE_BYTES: Final = 2**30
"""Of a device that nobody uses; drivers hold several hundred MiB themselves."""


class Gpu(NamedTuple):
    """One device."""

    uuid: str
    name: str
    driver: str
    used_bytes: int
    """By all processes of the machine."""
    total_bytes: int
    compute_mode: str
    """``Default``, ``Exclusive_Process`` or ``Prohibited``."""


def list_gpus() -> list[Gpu]:
    """The devices that this process may use; none where there is no driver."""
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
    """Read the lines of nvidia-smi, MiB as bytes."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    return [
        Gpu(uuid, name, driver, _bytes(used), _bytes(total), mode) for uuid, name, driver, used, total, mode in rows
    ]


def devices(config: RunConfig | None, gpus: list[Gpu]) -> list[Finding]:
    """Whether the run's devices are there, free, and may be computed on."""
    needs_gpu = config is not None and config.parallel.device == "cuda"
    if config is not None and config.parallel.device == "cpu":
        return [Finding(check="devices", status="ok", found="the CPU, as parallel.device says")]
    num_wanted = config.cluster.num_devices if config is not None else 1
    if not torch.cuda.is_available():
        if not gpus and not needs_gpu:
            return [Finding(check="devices", status="ok", found="no GPU; runs use the CPU")]
        found = f"{len(gpus)} GPUs, of which torch can use none"
        advice = "see CUDA and driver above, and CUDA_VISIBLE_DEVICES" if gpus else "set parallel.device=cpu"
        return [Finding(check="devices", status="fails", found=found, expected=f"{num_wanted}", advice=advice)]
    num_usable = torch.cuda.device_count()
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(num_usable)}))
    found = f"{num_usable} x {names}"
    if num_usable < num_wanted:
        advice = f"set cluster.num_devices={num_usable}, or see CUDA_VISIBLE_DEVICES"
        return [
            Finding(check="devices", status="fails", found=found, expected=f"{num_wanted} on each node", advice=advice)
        ]
    rest = [memory_in_use(gpus), compute_mode(gpus)] if gpus else []
    return [Finding(check="devices", status="ok", found=found), *rest]


def memory_in_use(gpus: list[Gpu]) -> Finding:
    """Whether other processes hold memory of the devices."""
    fullest = max(gpus, key=lambda gpu: gpu.used_bytes)
    found = f"{fullest.used_bytes / 2**30:.1f} of {fullest.total_bytes / 2**30:.0f} GiB in use on the fullest device"
    if fullest.used_bytes <= _IDLE_BYTES:
        return Finding(check="device memory", status="ok", found=found)
    advice = f"another process holds {fullest.uuid}; nvidia-smi lists it"
    return Finding(check="device memory", status="warning", found=found, expected="at most 1 GiB", advice=advice)


def compute_mode(gpus: list[Gpu]) -> Finding:
    """Whether the driver lets processes compute at all."""
    modes = sorted({gpu.compute_mode for gpu in gpus})
    if "Prohibited" in modes:
        advice = "sudo nvidia-smi --compute-mode=0"
        return Finding(check="compute mode", status="fails", found=", ".join(modes), expected="Default", advice=advice)
    return Finding(check="compute mode", status="ok", found=", ".join(modes))


def _bytes(mebibytes: str) -> int:
    """Some devices answer ``[N/A]``, those that share the host's memory among them."""
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else 0
