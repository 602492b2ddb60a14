"""The alarm of collapsed routing: nearly all tokens are routed to the same few experts."""

from mythos.callbacks.alarm import Alarm
from mythos.callbacks.base import Metrics
from mythos.config import records
from mythos.config.model import DenseConfig
from mythos.config.routing_advice import routing_advice
from mythos.config.run import RunConfig


def collapsed_routing(metrics: Metrics, run: RunConfig) -> Alarm | None:
    """Return an alarm if the load violation of a layer is above a share of the largest possible one.

    The violation is the mean over the loops below the mean loop count; deeper ones run in few steps.
    """
    experts, limit = run.model.core_ffn, run.telemetry.alarms.collapsed_routing
    if isinstance(experts, DenseConfig) or experts.num_active == experts.num_experts:
        return None
    shares: dict[int, float] = {}
    for layer in range(run.model.num_core_layers):
        names = [records.load_violation(layer, loop) for loop in range(run.mean_loops)]
        values = [metrics[name] for name in names if name in metrics]
        if values:
            shares[layer] = sum(values) / len(values) / experts.largest_violation
    layer = max(shares, key=lambda layer: shares[layer], default=0)
    if not shares.get(layer, 0.0) > limit:
        return None
    sentence = (
        f"the routing of core layer {layer} has collapsed: its load violation is {100 * shares[layer]:.0f}% of the "
        f"largest possible, above {100 * limit:g}%, so that most tokens use the same experts; {routing_advice(run)}"
    )
    return Alarm("collapsed_routing", shares[layer], limit, sentence)
