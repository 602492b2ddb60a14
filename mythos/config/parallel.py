"""Where the model runs and in what precision."""

from typing import Literal

from mythos.config.base import config


@config
class ParallelConfig:
    """``single``: one process on one device."""

    kind: Literal["single"] = "single"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16`` keeps fp32 weights and computes matrix products in bfloat16 under autocast."""
    compile: bool = False
    """Compile each block once; the loop around the core's blocks is never compiled."""
