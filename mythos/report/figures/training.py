"""Gradients, updates and learning rates; speed and memory."""

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import go
from mythos.report.read import Run, Series, with_prefix
from mythos.report.reduce import smoothed


def gradient_norms(run: Run) -> go.Figure | None:
    """Global gradient norm before clipping, and that of each parameter group, on a logarithmic axis."""
    norms = {}
    if records.GRAD_NORM in run.series:
        norms["all parameters"] = run.series[records.GRAD_NORM]
    norms |= with_prefix(run, records.group_grad_norm(""))
    return draw.lines(norms, draw.log_axis("gradient norm", list(norms.values())))


def gradients_by_loop(run: Run) -> go.Figure | None:
    """Norm of the loss's gradient with respect to the state after each loop, colours logarithmic; gaps without one."""
    return draw.loop_heatmap(run, records.gradient_norm, "gradient norm", is_log=True)


def update_sizes(run: Run) -> go.Figure | None:
    """|w' - w| / |w| of one step by parameter group, on a logarithmic axis."""
    norms = with_prefix(run, records.group_update_norm(""))
    return draw.lines(norms, draw.log_axis("relative update", list(norms.values())))


def learning_rates(run: Run) -> go.Figure | None:
    """Learning rate of each parameter group."""
    return draw.lines(with_prefix(run, records.learning_rate("")), {"title": "learning rate", "rangemode": "tozero"})


def logit_scale(run: Run) -> go.Figure | None:
    """Log-partition of the output logits, which grows if their scale diverges."""
    return draw.lines(_known(run, {"log-partition": records.LOG_PARTITION}), {"title": "nats"})


def throughput(run: Run) -> go.Figure | None:
    """Tokens per second, as logged and smoothed."""
    speed = run.series.get(records.TOKENS_PER_SECOND)
    if speed is None:
        return None
    color = draw.color("train")
    traces = [
        draw.line(draw.thinned(speed), "as logged", color, width=1, opacity=0.4, hovertemplate="%{y:,.4s}"),
        draw.line(draw.thinned(smoothed(speed)), "smoothed", color, hovertemplate="%{y:,.4s}"),
    ]
    return draw.figure(traces, draw.STEP, {"title": "tokens per second", "rangemode": "tozero", "tickformat": "~s"})


def utilisation(run: Run) -> go.Figure | None:
    """Model FLOPs utilisation, and the share of time spent waiting for data."""
    names = {"MFU": "speed/mfu", "waiting for data": "speed/data_wait_share"}
    known = _known(run, names)
    return draw.lines(known, draw.share_axis("share of time", list(known.values())), "%{y:.3~%}")


def memory(run: Run) -> go.Figure | None:
    """Peak memory of the fullest device."""
    names = {"in tensors": "memory/peak_allocated_gib", "reserved by the allocator": "memory/peak_reserved_gib"}
    return draw.lines(_known(run, names), {"title": "peak memory (GiB)", "rangemode": "tozero"})


def _known(run: Run, names: dict[str, str]) -> dict[str, Series]:
    return {label: run.series[name] for label, name in names.items() if name in run.series}
