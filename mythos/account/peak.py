"""Peak figures of devices: dense FLOP/s, memory, and links to other devices.

FLOP/s are bf16 on tensor cores with fp32 accumulation, and fp32 on CUDA cores (torch leaves TF32 off by default).
Sparse figures, which are twice as high, are not used. Memory is what the driver reports, rounded down.
"""

import re
from dataclasses import dataclass
from typing import Final

from mythos.config.base import ConfigError

_TERA: Final = 1e12
_GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator and its links; a link's speed is for one direction and for each device."""

    name: str
    """Words of ``torch.cuda.get_device_name`` that identify the device."""
    bf16_teraflops: float
    fp32_teraflops: float
    memory_gib: float
    memory_gigabytes_per_second: float
    node_gigabytes_per_second: float
    """To other devices of a node: over NVLink, or PCIe without NVLink."""
    network_gigabytes_per_second: float
    """To other nodes: one network adapter for each device, as in NVIDIA's own servers."""
    has_fused_experts: bool
    """Whether the kernels of ``mythos/moe/kernels`` run: compute capability 9.0 and later."""

    def peak_flops(self, precision: str) -> float:
        """Peak FLOP/s in ``fp32``, or in bf16 for every other precision."""
        return _TERA * (self.fp32_teraflops if precision == "fp32" else self.bf16_teraflops)

    @property
    def memory_bytes(self) -> int:
        """Memory of the device, in bytes."""
        return int(self.memory_gib * 2**30)

    @property
    def memory_bytes_per_second(self) -> float:
        """Bandwidth of the device's memory, reads and writes together."""
        return _GIGA * self.memory_gigabytes_per_second

    def link_bytes_per_second(self, crosses_nodes: bool) -> float:
        """Bandwidth of one direction of the slowest link between two devices."""
        return _GIGA * (self.network_gigabytes_per_second if crosses_nodes else self.node_gigabytes_per_second)


# Up to Hopper: NVIDIA's data sheets as commonly quoted; NVLink is half of the "total bandwidth" there. Memory: what
# the driver reports, rounded down (modal-labs/modal-client#2797 for A10, A100, H100, L4, L40S; 139.8 GiB for H200).
# B200: 178.35 GiB and 7.67 TB/s read from the driver (pytorch/ao#4002); bf16 is half of the HGX board's 36 PFLOP/s
# with sparsity, over 8, and the HGX B300's is the same. GB200 and GB300: half of an NVL72 rack's 360 PFLOP/s with
# sparsity, over 72. GB200: 186 GB in MLCommons' system descriptions; B300: 270 GB, GB300: 279 GB in vendors' tables;
# it is not known whether these are GiB, so that they are taken as 10^9 bytes. parallel.memory_gb overrides them.
# Network, for each device: 200 Gb/s on DGX A100, 400 on DGX H100, H200, B200 and GB200, 800 on B300 and GB300
# (ConnectX-6, -7, -8). A PCIe card shares the adapters of its server; 100 to 200 Gb/s is an assumption.
DEVICES: Final = (
    Device("GB300", 2500, 80, 259, 8000, 900, 100, True),
    Device("B200", 2250, 75, 178, 7700, 900, 50, True),
    Device("B300", 2250, 75, 251, 7700, 900, 100, True),
    Device("GB200", 2500, 80, 173, 8000, 900, 50, True),
    Device("GH200", 989, 67, 94, 4000, 450, 50, True),
    Device("H200", 989, 67, 139, 4800, 450, 50, True),
    Device("H100 NVL", 835, 60, 93, 3900, 300, 50, True),
    Device("H100 PCIe", 756, 51, 79, 2000, 64, 25, True),
    Device("H100", 989, 67, 79, 3350, 450, 50, True),
    Device("H800", 989, 67, 79, 3350, 200, 50, True),
    Device("H20", 148, 44, 95, 4000, 450, 50, True),
    Device("A100 40GB", 312, 19.5, 39, 1555, 300, 25, False),
    Device("A100", 312, 19.5, 79, 2039, 300, 25, False),
    Device("A800", 312, 19.5, 79, 2039, 200, 25, False),
    Device("A40", 149.7, 37.4, 44, 696, 32, 12.5, False),
    Device("A10", 125, 31.2, 22, 600, 32, 12.5, False),
    Device("L40S", 362, 91.6, 44, 864, 32, 12.5, False),
    Device("L4", 121, 30.3, 22, 300, 32, 12.5, False),
    Device("RTX A6000", 154.8, 38.7, 47, 768, 32, 12.5, False),
    Device("RTX 4090", 165.2, 82.6, 23, 1008, 32, 12.5, False),
    Device("RTX 3090", 71, 35.6, 23, 936, 32, 12.5, False),
)
"""The first entry whose words occur in a device name applies."""

_PARTIAL: Final = {"MIG", "Laptop", "D"}
"""Words in the names of devices that are slower or smaller than the entry of the same name."""


def find_device(device_name: str) -> Device | None:
    """Return the device with this name, as torch reports it or a user writes it; None if the table has no entry."""
    words = {word.upper() for word in re.split(r"[ -]", device_name)}
    if words & {word.upper() for word in _PARTIAL}:
        return None
    for device in DEVICES:
        if words.issuperset(device.name.upper().split()):
            return device
    return None


def named_device(name: str) -> Device:
    """Return the device with a name that a user gave.

    Raises:
        ConfigError: the table has no entry for it.
    """
    device = find_device(name)
    if device is None:
        known = ", ".join(device.name for device in DEVICES)
        raise ConfigError(f"device: {name!r} is not in the table of devices; give one of {known}.")
    return device


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return the peak FLOP/s of a device in ``bf16`` or ``fp32``; None if the table has no entry."""
    device = find_device(device_name)
    return None if device is None else device.peak_flops(precision)
