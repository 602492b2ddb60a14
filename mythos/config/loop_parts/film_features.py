"""Scale and shift of the state by features of the loop."""

from typing import Final, Literal

from mythos.config.base import PositiveInt, config
from mythos.config.part_spec import PartSpec, nothing


@config
class FilmFeaturesConfig:
    """h' = F((1 + g) h + b) with [g; b] = W phi: each loop scales and shifts the state by features phi of the loop."""

    kind: Literal["film_features"] = "film_features"
    features: Literal["index", "fraction"] = "index"
    """``index``: of the loop t. ``fraction``: of t / T and 1 / T, where T is the number of loops that a sequence runs;
    the state after loop t then depends on T, so that exits before T are not the exits of shorter runs."""
    num_frequencies: PositiveInt = 8
    """Frequencies of the features of the loop index."""

    @property
    def num_features(self) -> int:
        """Sine and cosine of each number and frequency, and a constant."""
        return 2 * self.num_frequencies * {"index": 1, "fraction": 2}[self.features] + 1


FILM_FEATURES: Final = PartSpec(
    config=FilmFeaturesConfig,
    build="mythos.loop.parts.film_features:FilmFeatures",
    family="loop/film_features",
    shapes=lambda part, model: {"rows.weight": (2 * model.dim, part.num_features)},
    initial_values={"rows.weight": "zeros"},
    optimizer_group={"rows.weight": "other"},
    fp32=(),
    flops=nothing,  # a vector for each sequence, not for each token
    saved_activations=lambda part, model, runtime: runtime.state_width * model.dim,
    carry_elements=nothing,
    cached_elements=nothing,
    is_repeatable=False,
)
