"""The alarm of collapsed routing: nearly all tokens are routed to the same few experts."""

from collections.abc import Sequence

from mythos.callbacks.base import Metrics
from mythos.config import records
from mythos.config.balance import NoBalance, QuantileBalance, SignBalance
from mythos.config.model import DenseConfig
from mythos.config.run import RunConfig
from mythos.config.schedule import warmup_steps


def collapsed_layer(metrics: Metrics, config: RunConfig) -> tuple[int, float] | None:
    """Return the layer with the most uneven load and its load violation over the largest possible one; None without.

    The violation is the mean over the loops below the mean loop count; deeper ones run in few steps. The largest
    possible is E / K - 1, where all tokens are routed to the same K experts.
    """
    experts = config.model.core_ffn
    if isinstance(experts, DenseConfig) or experts.num_active == experts.num_experts:
        return None
    shares: dict[int, float] = {}
    for layer in range(config.model.num_core_layers):
        names = [records.load_violation(layer, loop) for loop in range(config.mean_loops)]
        values = [metrics[name] for name in names if name in metrics]
        if values:
            shares[layer] = sum(values) / len(values) / (experts.num_experts / experts.num_active - 1)
    if not shares:
        return None
    layer = max(shares, key=lambda layer: shares[layer])
    return layer, shares[layer]


def collapsed_routing(history: Sequence[Metrics], config: RunConfig) -> tuple[float, str] | None:
    """Return the figure and the sentence of the alarm, if each of the last ``num_records`` telemetries crosses it."""
    limits = config.telemetry.alarms
    recent = history[-limits.num_records :]
    found = [collapsed_layer(metrics, config) for metrics in recent]
    if len(recent) < limits.num_records or not all(each and each[1] > limits.collapsed_routing for each in found):
        return None
    assert found[-1] is not None
    layer, share = found[-1]
    sentence = (
        f"the routing of core layer {layer} has collapsed: its load violation is {100 * share:.0f}% of the largest "
        f"possible, above {100 * limits.collapsed_routing:g}%, so that most tokens use the same experts; "
        f"{advice(config)}"
    )
    return share, sentence


def advice(config: RunConfig) -> str:
    """Return the likely cause and the key to change."""
    num_warmup_steps = warmup_steps(config.schedule, config.run.num_steps)
    match config.balance:
        case NoBalance():
            return "balance is none and nothing balances the experts; set balance=quantile."
        case SignBalance(rate=rate):
            return (
                f"balance=sign moves the selection bias by {rate:g} a step, which a new model outruns; set "
                "balance=quantile."
            )
        case QuantileBalance():
            return (
                "all tokens give the router the same input, mostly because the first updates were too large; lower "
                f"optim.lr ({config.optim.lr:g}) or lengthen schedule.num_warmup_steps ({num_warmup_steps})."
            )
