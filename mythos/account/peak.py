"""What a device can do at most, to hold a speed against: dense FLOP/s from the makers' data sheets.

bf16 on matrix units with fp32 accumulation, and fp32 on plain ones (torch leaves TF32 off). Sparse figures, which are
twice as high, never count.
"""

import re
from typing import Final

_TERA: Final = 1e12
_PEAKS: Final = (
    ("B200", 2250, 75),
    ("B300", 2250, 75),
    ("GB200", 2500, 80),
    ("GH200", 989, 67),
    ("H200", 989, 67),
    ("H100 NVL", 835, 60),
    ("H100 PCIe", 756, 51),
    ("H100", 989, 67),
    ("H800", 989, 67),
    ("H20", 148, 44),
    ("A100", 312, 19.5),
    ("A800", 312, 19.5),
    ("A40", 149.7, 37.4),
    ("A10", 125, 31.2),
    ("L40S", 362, 91.6),
    ("L4", 121, 30.3),
    ("RTX A6000", 154.8, 38.7),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71, 35.6),
)
"""Words of ``torch.cuda.get_device_name``, TFLOP/s in bf16, TFLOP/s in fp32; the first line that fits counts."""

_PARTIAL: Final = {"MIG", "Laptop", "D"}
"""Words of devices that are less than their name says."""


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of a device in ``bf16`` or ``fp32``; None for one that the table does not hold."""
    words = set(re.split(r"[ -]", device_name))
    if words & _PARTIAL:
        return None
    for name, bf16, fp32 in _PEAKS:
        if words.issuperset(name.split()):
            return _TERA * (fp32 if precision == "fp32" else bf16)
    return None
