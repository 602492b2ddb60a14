"""The recipes of ``conf/experiment``: complete settings for pretraining a model of each size."""

import math
from typing import Final, NamedTuple


class Recipe(NamedTuple):
    """One file of ``conf/experiment``."""

    name: str
    num_parameters: float
    """Parameters of its model, to three digits."""
    is_moe: bool


RECIPES: Final = (
    Recipe("140m-3b-tokens", 145e6, False),
    Recipe("370m-7b-tokens", 365e6, False),
    Recipe("560m-a210m-11b-tokens", 562e6, True),
    Recipe("1b-20b-tokens", 998e6, False),
    Recipe("3b-59b-tokens", 2.93e9, True),
    Recipe("10b-204b-tokens", 10.2e9, True),
)
"""The smallest first."""


def nearest_recipe(num_parameters: int, is_moe: bool) -> Recipe:
    """Return the recipe for the model of the same kind whose size has the ratio closest to 1."""
    same_kind = [recipe for recipe in RECIPES if recipe.is_moe == is_moe]
    return min(same_kind, key=lambda recipe: abs(math.log(recipe.num_parameters / num_parameters)))
