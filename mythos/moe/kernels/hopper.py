"""Every function of ``reference`` as Triton kernels."""

from mythos.moe.kernels.passes import combine, swiglu_backward
from mythos.moe.kernels.products import (
    down,
    down_backward,
    gate_value,
    gate_value_backward,
    weight_gradient_w2,
    weight_gradient_w13,
)

__all__ = [
    "combine",
    "down",
    "down_backward",
    "gate_value",
    "gate_value_backward",
    "swiglu_backward",
    "weight_gradient_w2",
    "weight_gradient_w13",
]
