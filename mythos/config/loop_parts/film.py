"""Scale and shift of the state by loop."""

from typing import Final, Literal

from mythos.config.base import config
from mythos.config.part_spec import PartSpec, nothing


@config
class FilmConfig:
    """h' = F((1 + g_t) h + b_t): each loop scales and shifts the state (FiLM, arXiv 1709.07871, by loop index)."""

    kind: Literal["film"] = "film"


FILM: Final = PartSpec(
    config=FilmConfig,
    build="mythos.loop.parts.film:Film",
    family="loop/film",
    shapes=lambda part, model: {
        "scale.weight": (model.max_loops, model.dim),
        "shift.weight": (model.max_loops, model.dim),
    },
    initial_values={"scale.weight": "zeros", "shift.weight": "zeros"},
    optimizer_group={"scale.weight": "other", "shift.weight": "other"},
    fp32=(),
    flops=nothing,
    saved_activations=lambda part, model, runtime: runtime.state_width * model.dim,
    carry_elements=nothing,
    cached_elements=nothing,
    is_repeatable=False,
)
