"""A weighted average over the states of earlier loops."""

from typing import Final, Literal

from mythos.config.base import PositiveInt, config
from mythos.config.part_spec import PartSpec, nothing


@config
class LoopAverageConfig:
    """h_t+1 = F((1 + a_0) h_t + a_1 h_t-1 + ... + a_n h_t-n), with coefficients for each loop (DenseFormer)."""

    kind: Literal["loop_average"] = "loop_average"
    num_slots: PositiveInt = 8
    """n, the number of earlier states."""


LOOP_AVERAGE: Final = PartSpec(
    config=LoopAverageConfig,
    build="mythos.loop.parts.loop_average:LoopAverage",
    family="loop/loop_average",
    shapes=lambda part, model: {"weights.weight": (model.max_loops, 1 + part.num_slots)},
    initial_values={"weights.weight": "zeros"},
    optimizer_group={"weights.weight": "other"},
    fp32=(),
    flops=nothing,
    saved_activations=lambda part, model, runtime: runtime.state_width * model.dim,
    carry_elements=lambda part, model: part.num_slots * model.dim,
    new_carry_elements=nothing,  # the newest slot is the loop's own state
    cached_elements=nothing,
    is_repeatable=False,
)
