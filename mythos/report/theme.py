"""Colours of the page and its plots, one palette for each colour scheme."""

from typing import Any, Final, NamedTuple

OKABE_ITO: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours (Wong, Nature Methods 8, 441, 2011), distinct for colour-blind readers as well.

Without their yellow, which white paper swallows; on a dark ground white takes the place of black.
"""


class Palette(NamedTuple):
    """Every colour of one scheme, as CSS hex colours."""

    page: str
    card: str
    line: str
    """Borders and grid lines."""
    text: str
    muted: str
    train: str
    validation: str
    good: str
    """Verdicts: healthy, to be watched, at fault; a mark and a word accompany the colour."""
    fair: str
    bad: str
    categories: tuple[str, ...]
    """Colours of unordered items, distinguished by hue and by lightness."""
    ramp: tuple[str, ...]
    """Sequential scale for lines: from early, or few loops, to late, or many; all of it legible on the card."""
    surface: tuple[str, ...]
    """Sequential scale for areas: low values near the card, high ones far from it."""


LIGHT = Palette(
    page="#f6f7f8",
    card="#ffffff",
    line="#e6e9ec",
    text="#1b2430",
    muted="#66717f",
    train="#0072b2",
    validation="#d55e00",
    good="#009e73",
    fair="#e69f00",
    bad="#d55e00",
    categories=OKABE_ITO,
    ramp=("#8fcfc0", "#46a3ad", "#2b7396", "#26497a", "#1c2350"),
    surface=("#eff8f5", "#b5dfd4", "#62b2b5", "#2f7a9b", "#28477a", "#1a1d45"),
)
DARK = Palette(
    page="#0f1317",
    card="#171c22",
    line="#2a313a",
    text="#e7ebef",
    muted="#98a3af",
    train="#56b4e9",
    validation="#e69f00",
    good="#009e73",
    fair="#e69f00",
    bad="#d55e00",
    categories=(*OKABE_ITO[:-1], "#ffffff"),
    ramp=("#3c5f96", "#3c87ac", "#48b0b4", "#82d6bb", "#dcf7d8"),
    surface=("#212e3b", "#28435f", "#2f6a8e", "#3f9fae", "#7fd3bb", "#e3f9dc"),
)
SCHEMES = {"light": LIGHT, "dark": DARK}

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def mix(ramp: tuple[str, ...], fraction: float) -> str:
    """The colour at ``fraction`` (0 to 1) of a ramp of hex colours, linear between its stops."""
    position = fraction * (len(ramp) - 1)
    index = min(int(position), len(ramp) - 2)
    weight = position - index
    lower, upper = (bytes.fromhex(stop[1:]) for stop in ramp[index : index + 2])
    return "#" + bytes(round(a + (b - a) * weight) for a, b in zip(lower, upper, strict=True)).hex()


def css_variables(palette: Palette) -> str:
    """The single colours of a palette as CSS custom properties."""
    return " ".join(f"--{name}: {value};" for name, value in palette._asdict().items() if isinstance(value, str))


def template(palette: Palette) -> dict[str, Any]:
    """A plotly template: the common properties of all plots under one colour scheme."""
    axis = {
        "gridcolor": palette.line,
        "linecolor": palette.line,
        "zeroline": False,
        "automargin": True,
        "exponentformat": "power",
        "tickfont": {"color": palette.muted},
        "title": {"font": {"color": palette.muted, "size": 13}, "standoff": 12},
    }
    return {
        "layout": {
            "font": {"family": _FONT, "size": 12.5, "color": palette.text},
            "paper_bgcolor": palette.card,
            "plot_bgcolor": palette.card,
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "xaxis": axis | {"showgrid": False, "showline": True, "ticks": "outside", "tickcolor": palette.line},
            "yaxis": axis,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
            "hoverlabel": {
                "bgcolor": palette.card,
                "bordercolor": palette.line,
                "font": {"color": palette.text},
                "namelength": -1,
            },
            "colorscale": {"sequential": _scale(palette.surface)},
            "annotationdefaults": {"font": {"color": palette.muted}, "bgcolor": palette.card, "opacity": 0.9},
            "shapedefaults": {"line": {"color": palette.muted}},
        }
    }


def _scale(stops: tuple[str, ...]) -> list[tuple[float, str]]:
    return [(index / (len(stops) - 1), stop) for index, stop in enumerate(stops)]
