"""Whether a run fits the device that it starts on, and what to change if it does not."""

from mythos.account.estimate import POLICIES, cheapest_remat, memory, with_policy
from mythos.account.recipes import largest_recipe_that_fits
from mythos.account.search import fewest_changes, layouts
from mythos.config.base import ConfigError
from mythos.config.run import RunConfig


def choose_remat(run: RunConfig, device_name: str, memory_bytes: int, has_fused_experts: bool) -> tuple[RunConfig, str]:
    """Resolve ``remat=auto``; returns the run, and a sentence that states the choice and the reason.

    Raises:
        ConfigError: nothing fits, with the estimate and what to change.
    """
    chosen, estimate = cheapest_remat(run, memory_bytes, has_fused_experts)
    available = f"{memory_bytes / 2**30:.1f} GiB of {device_name}"
    if estimate.total > memory_bytes:
        raise ConfigError(
            f"parallel.remat: even {_policy(chosen)} is estimated to need {estimate.total / 2**30:.1f} GiB, more than "
            f"the {available}; {_advice(run, memory_bytes, has_fused_experts)}."
        )
    sentence = f"parallel.remat=auto: {_policy(chosen)}, estimated to need {estimate.total / 2**30:.1f} of {available}"
    if chosen.parallel.remat != "none":
        most = memory(with_policy(run, POLICIES[0]), has_fused_experts)
        sentence += f"; none would need {most.total / 2**30:.1f} GiB"
    return chosen, sentence


def check_policy(run: RunConfig, device_name: str, memory_bytes: int, has_fused_experts: bool) -> None:
    """Refuse an explicit ``remat`` with which the tensors alone, without margin and context, exceed the memory.

    Raises:
        ConfigError: they do, with the estimate and what to change.
    """
    needed = memory(run, has_fused_experts).allocated
    if needed > memory_bytes:
        raise ConfigError(
            f"parallel.remat: with {_policy(run)} the tensors alone are estimated to need {needed / 2**30:.1f} GiB, "
            f"more than the {memory_bytes / 2**30:.1f} GiB of {device_name}; "
            f"{_advice(run, memory_bytes, has_fused_experts)}."
        )


def _policy(run: RunConfig) -> str:
    """Name the policy of a run."""
    return run.parallel.remat + (" with offload_states" if run.parallel.offload_states else "")


def _advice(run: RunConfig, memory_bytes: int, has_fused_experts: bool) -> str:
    """Name the fewest overrides with which the run fits or, if there are none, the largest recipe that fits."""
    for offload_optimizer in (None, True):
        candidates = layouts(run, offload_optimizer)
        fitting = [other for other in candidates if memory(other, has_fused_experts).total <= memory_bytes]
        if fitting:
            fitting.sort(
                key=lambda other: (
                    POLICIES.index((other.parallel.remat, other.parallel.offload_states)),
                    -other.data.micro_batch_size,
                )
            )
            return f"set {' '.join(fewest_changes(run, fitting))}, with which it fits"
    text = (
        "lower depth.num_grad_loops (loops with gradients) or data.seq_len, or shard the run over more devices "
        "(mythos plan --search lists layouts that fit)"
    )
    recipe = largest_recipe_that_fits(run, memory_bytes, has_fused_experts)
    return f"{text}, or train a recipe that fits, experiment={recipe}" if recipe else text
