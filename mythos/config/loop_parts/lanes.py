"""Two residual lanes around a loop."""

from typing import TYPE_CHECKING, Final, Literal

from mythos.config.base import FP32_BYTES, config
from mythos.config.part_spec import PartSpec, Runtime, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig


@config
class LanesConfig:
    """u = h + r0 h + r1 k, y = F(u); both lanes h and k mix and receive y - u (hyper-connections of two lanes)."""

    kind: Literal["lanes"] = "lanes"


def _lanes_save(part: LanesConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """Both lanes, their difference and the change; if compiled, the lanes, u and y."""
    return (4 * runtime.state_width if runtime.compiled else 2 * runtime.state_width + 2 * FP32_BYTES) * model.dim


LANES: Final = PartSpec(
    config=LanesConfig,
    build="mythos.loop.parts.lanes:Lanes",
    family="loop/lanes",
    shapes=lambda part, model: {
        "read.weight": (model.max_loops, 2),
        "mix.weight": (model.max_loops, 1),
        "write.weight": (model.max_loops, 2),
    },
    initial_values={"read.weight": "zeros", "mix.weight": "zeros", "write.weight": "zeros"},
    optimizer_group={"read.weight": "other", "mix.weight": "other", "write.weight": "other"},
    fp32=(),
    flops=nothing,
    saved_activations=_lanes_save,
    carry_elements=lambda part, model: model.dim,
    cached_elements=nothing,
    is_repeatable=False,
)
