"""What to change when the routing to the experts is not balanced."""

from mythos.config.balance import NoBalance, QuantileBalance, SignBalance
from mythos.config.run import RunConfig
from mythos.config.schedule import warmup_steps


def routing_advice(config: RunConfig) -> str:
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
