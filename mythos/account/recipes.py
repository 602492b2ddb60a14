"""Advice that names a recipe: for a large model with the settings of a toy, and for a device that is too small."""

from typing import Final

from mythos.account.estimate import cheapest_remat
from mythos.account.parameters import count_parameters
from mythos.config.load import load
from mythos.config.recipes import RECIPES, nearest_recipe
from mythos.config.run import RunConfig

MIN_PARAMETERS: Final = 100_000_000
"""Models up to this size may be toys."""
MIN_WINDOW: Final = 512
MIN_TOKENS_PER_STEP: Final = 32_768


def toy_settings(run: RunConfig, is_gpu: bool) -> str | None:
    """Return a sentence about settings that suit only toys and the recipe for the model's size; None if there are none.

    Args:
        is_gpu: whether the run is on a GPU, where fp32 is slow.
    """
    num_parameters = count_parameters(run.model).total
    if num_parameters <= MIN_PARAMETERS:
        return None
    tokens_per_step = run.data.batch_size * run.data.seq_len
    found = []
    if run.data.seq_len < MIN_WINDOW:
        found.append(f"windows of {run.data.seq_len} tokens (data.seq_len)")
    if tokens_per_step < MIN_TOKENS_PER_STEP:
        found.append(f"{tokens_per_step:,} tokens a step (data.batch_size)")
    if is_gpu and run.parallel.precision == "fp32":
        found.append("fp32 on a GPU (parallel.precision)")
    if not found:
        return None
    recipe = nearest_recipe(num_parameters, run.model.is_moe)
    return (
        f"a model of {num_parameters / 1e6:,.0f}M parameters trains with {', '.join(found)}; "
        f"experiment={recipe.name} has settings for such a model."
    )


def largest_recipe_that_fits(run: RunConfig, memory_bytes: int, has_fused_experts: bool) -> str | None:
    """Return the name of the largest recipe that fits devices as those of ``run``; None if none does."""
    for recipe in reversed(RECIPES):
        candidate = load([f"experiment={recipe.name}"])
        if candidate.cluster.world_size > run.cluster.world_size:
            continue
        if cheapest_remat(candidate, memory_bytes, has_fused_experts)[1].total <= memory_bytes:
            return recipe.name
    return None
