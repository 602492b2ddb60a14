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
    remat: Literal["none", "loop", "block"] = "none"
    """What the core computes again in the backward: nothing; each pass, of which only the state and the experts'
    choices stay; or each block."""
    offload_states: bool = False
    """With ``remat=loop``, keep the states of the passes in host memory until the backward."""

    def __post_init__(self) -> None:
        if self.offload_states and self.remat != "loop":
            raise ValueError(f"offload_states is true but remat is {self.remat}; only remat=loop keeps states to move.")
