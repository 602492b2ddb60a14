"""A router of its own for each loop."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from mythos.config.base import MAX_INT, Positive, config
from mythos.config.part_spec import PartSpec, Shapes, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig


@config
class LoopRouterConfig:
    """R_t = R + N_t from the second loop on: a router of its own for each loop, random at the start."""

    kind: Literal["loop_router"] = "loop_router"
    num_routers: Annotated[int, Field(ge=2, le=MAX_INT, strict=True)] = 8
    """Loops with a router of their own; later loops share the last one."""
    scale: Positive = 3.0
    """Standard deviation of N at the start over that of R; the routers of two loops correlate by 1 / (1 + scale^2)."""


def num_later_routers(part: LoopRouterConfig, model: "ModelConfig") -> int:
    """Rows of the table, which the first loop does not read."""
    return min(part.num_routers, model.max_loops) - 1


def _router_shapes(part: LoopRouterConfig, model: "ModelConfig") -> Shapes:
    if model.core_ffn.kind != "moe":
        return {}
    return {"table.weight": (num_later_routers(part, model), model.core_ffn.num_experts, model.dim)}


def _refusal(part: LoopRouterConfig, model: "ModelConfig") -> str | None:
    if model.core_ffn.kind != "moe":
        return "loop_router changes routers, but model.core_ffn.kind is dense; set it to moe, or leave the part out."
    if model.max_loops < 2:
        return "loop_router changes the loops after the first, but model.max_loops is 1; set it to 2 or more."
    return None


LOOP_ROUTER: Final = PartSpec(
    config=LoopRouterConfig,
    build="mythos.loop.part:InBlocks",
    family="loop/loop_router",
    shapes=lambda part, model: {},
    initial_values={"table.weight": "mythos.loop.parts.loop_router:initialize_table"},
    optimizer_group={"table.weight": "other"},
    fp32=(),
    flops=nothing,
    saved_activations=nothing,
    carry_elements=nothing,
    cached_elements=nothing,
    is_repeatable=False,
    router_build="mythos.loop.parts.loop_router:LoopRouter",
    router_shapes=_router_shapes,
    refusal=_refusal,
)
