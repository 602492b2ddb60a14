"""Groups of ranks, and their description."""

from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig

_MOST_GROUPS = 4
"""Maximum number of groups that are listed."""


def expert_ranks(world_size: int, ep_size: int) -> list[list[int]]:
    """Return the groups of ranks over which experts are sharded: neighbours, so that they are on one node."""
    return [list(range(first, first + ep_size)) for first in range(0, world_size, ep_size)]


def describe(config: RunConfig) -> str:
    """Describe the layout of a run of several ranks, one line for each property."""
    cluster, parallel = config.cluster, config.parallel
    assert isinstance(parallel, DeepSpeedParallel)
    lines = [
        f"{cluster.world_size} ranks ({cluster.num_nodes} nodes x {cluster.num_devices}), "
        f"ZeRO {parallel.zero_stage}, {config.num_micro_batches} micro-batches a step on each"
    ]
    if parallel.ep_size > 1:
        groups = expert_ranks(cluster.world_size, parallel.ep_size)
        shown = ", ".join("-".join(map(str, (group[0], group[-1]))) for group in groups[:_MOST_GROUPS])
        rest = f" and {len(groups) - _MOST_GROUPS} more" if len(groups) > _MOST_GROUPS else ""
        lines.append(f"experts sharded over {parallel.ep_size} ranks each: {shown}{rest}")
        if cluster.num_devices % parallel.ep_size:
            lines.append(
                f"warning: expert ranks span nodes, because parallel.ep_size {parallel.ep_size} does not divide the "
                f"{cluster.num_devices} devices of a node; every expert layer waits for the network between them"
            )
    return "\n".join(lines)
