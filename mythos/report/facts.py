"""The header of the page: model, progress and losses, as text."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from mythos.account.parameters import count_parameters
from mythos.config import records
from mythos.config.depth import FixedDepth
from mythos.config.model import DenseConfig
from mythos.config.run import RunConfig
from mythos.report.read import Run, Series, by_index, nearest_num_loops
from mythos.report.reduce import smoothed

_DEPTHS = {
    "fixed": "Fixed",
    "poisson": "Poisson",
    "lognormal_poisson": "Log-normal Poisson",
    "uniform": "Uniform",
    "choice": "Choice",
}
_IN_WORDS = ("", " thousand", " million", " billion", " trillion")


def describe_model(config: RunConfig) -> str:
    """The shape of the model and the depth distribution of training, in one line."""
    model, depth = config.model, config.depth
    match model.core_ffn:
        case DenseConfig():
            experts = "dense core"
        case moe:
            experts = f"{moe.num_experts} experts, {moe.num_active} active + {moe.num_shared} shared"
    loops = f"T = {depth.mean:g}" if isinstance(depth, FixedDepth) else f"mean T = {depth.mean:g}"
    return " · ".join(
        (
            f"{model.num_prelude_layers} + {model.num_core_layers} × T + {model.num_coda_layers} layers",
            f"{_DEPTHS[depth.kind]} depth, {loops}",
            f"width {model.dim:,}",
            experts,
            model.attention.kind.upper(),
            f"vocabulary {model.vocab_size:,}",
        )
    )


class Fact(NamedTuple):
    """One quantity of the header."""

    label: str
    value: str
    detail: str = ""
    """The same in another unit; empty without one."""


def facts(run: Run) -> list[Fact]:
    """Each fact that the metrics contain; held-out losses in bits per byte as well where the run knows its bytes."""
    clock, tokens = run.series["time"], run.series["tokens"]
    result = [
        Fact("Parameters", describe_parameters(run.config)),
        Fact(f"Steps of {run.config.run.num_steps:,}", f"{clock.steps[-1]:,}"),
        Fact("Tokens", quantity(tokens.values[-1])),
        Fact("Wall time", duration(wall_seconds(run))),
    ]
    if train := run.series.get(records.TRAIN_LOSS):
        result.append(Fact("Training loss, smoothed", f"{smoothed(train).values[-1]:.3f} nats"))
    losses = by_index(run.series, records.validation_loss)
    if (num_loops := nearest_num_loops(run)) is not None:
        result.append(_loss(run, f"Validation loss, T = {num_loops}", _last(losses[num_loops])))
        if (best := best_validation(losses)) is not None:
            result.append(_loss(run, f"Best validation, T = {best.num_loops}, step {best.step:,}", best.loss))
        if num_loops > (fewest := min(losses)):
            gain = _last(losses[fewest]) - _last(losses[num_loops])
            result.append(_loss(run, f"Gained from T = {fewest} to {num_loops}", gain))
    return result


def bits_per_byte(run: Run, nats: float) -> str:
    """A loss in nats per token as text in bits per byte; empty if the run's bytes per token are not known."""
    if run.text is None or run.text.bytes_per_token is None:
        return ""
    return f"{nats * run.text.bits_per_nat:.3f} bits per byte"


def _loss(run: Run, label: str, nats: float) -> Fact:
    return Fact(label, f"{nats:.3f} nats", bits_per_byte(run, nats))


class Best(NamedTuple):
    """The lowest validation loss of a run."""

    loss: float
    """In nats per token."""
    num_loops: int
    step: int


def best_validation(losses: dict[int, Series]) -> Best | None:
    """The lowest loss over all numbers of loops (the keys) and validations; None when none is finite."""
    candidates = []
    for num_loops, series in losses.items():
        if (finite := np.isfinite(series.values)).any():
            index = int(np.where(finite, series.values, np.inf).argmin())
            candidates.append(Best(float(series.values[index]), num_loops, int(series.steps[index])))
    return min(candidates, default=None)


def describe_parameters(config: RunConfig) -> str:
    """Total parameters and, with experts, those active for a token in one loop: 560 million, 210 million active."""
    total = quantity(count_parameters(config.model, config.halting).total)
    if not config.model.is_moe:
        return total
    active = quantity(count_parameters(config.model, config.halting, active=True).total)
    unit = total.partition(" ")[2]
    if unit == active.partition(" ")[2]:
        active = active.partition(" ")[0]
    return f"{total}, {active} active"


def wall_seconds(run: Run) -> float:
    """Seconds from the first line of metrics to the last."""
    clock = run.series["time"]
    return float(clock.values[-1] - clock.values[0])


def last_update(run: Run) -> str:
    """Time of the run's last line of metrics, in UTC."""
    return f"{datetime.fromtimestamp(_last(run.series['time']), UTC):%Y-%m-%d %H:%M} UTC"


def quantity(count: float, units: Sequence[str] = _IN_WORDS) -> str:
    """A count with three significant digits: 32.8 million."""
    for unit in units[:-1]:
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}{units[-1]}"


def duration(seconds: float) -> str:
    """A time span in its two largest units: 1 h 12 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _last(series: Series) -> float:
    return float(series.values[-1])
