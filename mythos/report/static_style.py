"""The style of static figures: colours, fonts, axes and legend; and the rendering of a figure as SVG text."""

import io
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple

from mythos.config.base import ConfigError
from mythos.config.extras import install_command
from mythos.report.facts import quantity
from mythos.report.theme import LIGHT

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
except ModuleNotFoundError:
    command = install_command("report")
    raise ConfigError(f"matplotlib, which draws the figures, is not installed; run {command}.") from None

COLORS: Final = LIGHT.categories
_MARKERS: Final = "osD^vPX"
_DASHES: Final = ("solid", (0, (4, 1.5)), (0, (1, 1.2)))
MAX_RUNS: Final = len(COLORS) * len(_DASHES)
_WIDTH: Final = 8.3
"""Width in inches of 96 pixels: 800 pixels."""
_ROW_LETTERS: Final = 120
"""Letters per row of the legend."""
_HANDLE_LETTERS: Final = 8
"""Width of a handle of the legend, in letters."""
_FACTORS: Final = (
    (3, (1.0,)),
    (2, (1.0, 2.0, 5.0)),
    (2, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)),
)
"""Multiples of powers of ten for ticks, each with the number of ticks that they must give to be used."""
_MAX_MARKERS: Final = 10
"""Markers per line; a line with more points shows a marker at some of them."""
_STYLE: Final[Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mythos",  # equal figures get equal ids
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a run's name stays one
    "text.color": LIGHT.text,
    "axes.labelcolor": LIGHT.text,
    "axes.edgecolor": LIGHT.muted,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LIGHT.line,
    "xtick.color": LIGHT.muted,
    "ytick.color": LIGHT.muted,
    "xtick.labelcolor": LIGHT.text,
    "ytick.labelcolor": LIGHT.text,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "axes.axisbelow": True,
}


class LineStyle(NamedTuple):
    """Colour, marker and dashes of a line; the dashes differ only when the colours are used up."""

    color: str
    marker: str
    linestyle: Any

    def of(self, num_points: int) -> dict[str, Any]:
        """The style as options of matplotlib's ``plot``, for a line of ``num_points`` points."""
        return self._asdict() | {"markevery": max(1, math.ceil(num_points / _MAX_MARKERS))}


def line_styles(names: Iterable[str]) -> dict[str, LineStyle]:
    """A style for each name, in their order; at most ``MAX_RUNS``."""
    style_of = {}
    for index, name in enumerate(names):
        dashes, color = divmod(index, len(COLORS))
        style_of[name] = LineStyle(COLORS[color], _MARKERS[color], _DASHES[dashes])
    return style_of


def render(num_panels: int, draw: Callable[[list[Axes]], None], height: float = 3.2) -> str:
    """A row of panels with one legend above, as SVG; the same panels always give the same text.

    Args:
        draw: fills the panels; the legend lists each label once.
        height: height of the panels in inches, to which the rows of the legend are added.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's matplotlibrc
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        panels = list(figure.subplots(1, num_panels, squeeze=False)[0])
        draw(panels)
        num_rows = _add_legend(figure, panels)
        figure.set_size_inches(_WIDTH, height + 0.2 * num_rows)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


def log_axis(axes: Axes, which: Literal["x", "y"], values: Iterable[float], label: Callable[[float], str]) -> None:
    """Make an axis logarithmic, with the ticks of ``log_ticks``."""
    axes.set(**{f"{which}scale": "log"})
    set_ticks(getattr(axes, f"{which}axis"), log_ticks(values), label)


def log_ticks(values: Iterable[float]) -> list[float]:
    """Powers of ten between the positive values; multiples of them as well if these are few."""
    positive = [float(value) for value in values if math.isfinite(value) and value > 0]
    if not positive:
        return []
    low, high = min(positive), max(positive)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for num_needed, factors in _FACTORS:
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low * 0.97 <= tick <= high * 1.03]
        if len(inside) >= num_needed:
            return inside
    return sorted({low, high})


def num_loops_axis(axes: Axes, max_loops: int) -> None:
    """Make the x axis one of numbers of loops: logarithmic, with a tick at each power of two."""
    axes.set_xscale("log", base=2)
    set_ticks(axes.xaxis, [2**power for power in range(max_loops.bit_length())], "{:g}".format)
    axes.set_xlabel("loops T")


def set_ticks(axis: Any, positions: list[float], label: Callable[[float], str]) -> None:
    """Set ticks at these positions only."""
    axis.set_major_locator(FixedLocator(positions))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda position, _: label(position)))


def short(count: float) -> str:
    """A count with a unit: 20k, 5M."""
    return quantity(count, ("", "k", "M", "B", "T"))


def scientific(number: float) -> str:
    """A number with its power of ten: 2·10¹⁵."""
    power = math.floor(math.log10(number) + 1e-9)
    raised = "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = round(number / 10.0**power, 2)
    return raised if factor == 1 else f"{factor:g}·{raised}"


def _add_legend(figure: Figure, panels: list[Axes]) -> int:
    """Add one legend for all panels; returns the number of its rows."""
    handles: dict[str, Any] = {}
    for panel in panels:
        for line in panel.get_lines():
            if not str(line.get_label()).startswith("_child"):  # matplotlib's name for a line without a label
                handles.setdefault(str(line.get_label()), line)
    widths = [len(label) + _HANDLE_LETTERS for label in handles]
    num_columns = len(widths) if sum(widths) <= _ROW_LETTERS else max(1, _ROW_LETTERS // max(widths))
    figure.legend(
        handles.values(), handles, loc="outside upper left", ncols=num_columns, columnspacing=1.4, handlelength=2.2
    )
    return math.ceil(len(handles) / num_columns)
