"""Charts over loops of bounded size: a history of the per-loop metrics, and heatmaps as plain SVG."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Final

MAX_COLUMNS: Final = 128
_PER_LOOP: Final = re.compile(r"(?P<family>.+)/t(?P<loop>\d+)")
_PER_LAYER: Final = re.compile(r"(?P<quantity>.+)/l(?P<layer>\d+)/t(?P<loop>\d+)")
_ANCHORS: Final = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
"""Viridis, from the smallest value to the largest."""
_NUM_BETWEEN: Final = 4


def _shades() -> list[str]:
    """The anchors with colours between them."""
    anchors = [[int(color[start : start + 2], 16) for start in (1, 3, 5)] for color in _ANCHORS]
    mixed = [
        [round(a + (b - a) * part / _NUM_BETWEEN) for a, b in zip(low, high, strict=True)]
        for low, high in pairwise(anchors)
        for part in range(_NUM_BETWEEN)
    ]
    return ["#" + "".join(f"{channel:02x}" for channel in color) for color in [*mixed, anchors[-1]]]


_COLORS: Final = _shades()


class LoopHistory:
    """Values of each per-loop metric by (step, loop), at no more than ``max_columns`` steps.

    Keeps all steps, then every second one, then every fourth one, as the run gets longer.
    """

    def __init__(self, max_columns: int = MAX_COLUMNS) -> None:
        self.max_columns = max_columns
        self.columns: defaultdict[str, dict[int, dict[int, float]]] = defaultdict(dict)
        self.strides: defaultdict[str, int] = defaultdict(lambda: 1)
        self.num_seen: defaultdict[str, int] = defaultdict(int)

    def add(self, metrics: Mapping[str, float], step: int) -> bool:
        """Add the per-loop metrics of a step, except those of single layers; returns whether there are any."""
        families: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for name, value in metrics.items():
            match = _PER_LOOP.fullmatch(name)
            if match and not _PER_LAYER.fullmatch(name):
                families[match["family"]][int(match["loop"])] = value
        for family, values in families.items():
            self._append(family, values, step)
        return bool(families)

    def _append(self, family: str, values: dict[int, float], step: int) -> None:
        columns = self.columns[family]
        if self.num_seen[family] % self.strides[family] == 0:
            columns[step] = values
        self.num_seen[family] += 1
        if len(columns) > self.max_columns:
            self.columns[family] = {kept: columns[kept] for kept in list(columns)[::2]}
            self.strides[family] *= 2

    def matrix(self, family: str) -> tuple[list[int], list[list[float]]]:
        """Return the steps, and one row for each loop; NaN where a step ran fewer loops."""
        columns = self.columns[family]
        num_loops = 1 + max(loop for values in columns.values() for loop in values)
        rows = [[values.get(loop, math.nan) for values in columns.values()] for loop in range(num_loops)]
        return list(columns), rows


def per_layer(metrics: Mapping[str, float]) -> dict[str, float]:
    """Select the metrics that have a value for each (layer, loop)."""
    return {name: value for name, value in metrics.items() if _PER_LAYER.fullmatch(name)}


def layer_rows(metrics: Mapping[str, float]) -> tuple[list[str], list[list[float | None]]]:
    """Return columns and rows of a table of the metrics of ``per_layer``, one row for each (layer, loop)."""
    cells: defaultdict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    for name, value in metrics.items():
        if match := _PER_LAYER.fullmatch(name):
            cells[int(match["layer"]), int(match["loop"])][match["quantity"]] = value
    quantities = sorted({quantity for values in cells.values() for quantity in values})
    rows = [[layer, loop, *(cells[layer, loop].get(q) for q in quantities)] for layer, loop in sorted(cells)]
    return ["layer", "loop", *quantities], rows


def spread(steps: Sequence[int], num_lines: int = 6) -> list[int]:
    """Return the indices of the last step and of evenly spaced steps before it."""
    num_lines = min(num_lines, len(steps))
    return sorted({round((len(steps) - 1) * part / max(num_lines - 1, 1)) for part in range(num_lines)})


def heatmap(title: str, rows: Sequence[Sequence[float]], columns: Sequence[object], row_name: str = "loop") -> str:
    """Render a page with one SVG heatmap and its scale, without scripts; one path per colour keeps it small.

    Args:
        rows: values, the first row at the bottom; values that are not finite stay blank.
        columns: a label for each column; the first and the last are shown.
    """
    finite = [value for row in rows for value in row if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    paths: list[list[str]] = [[] for _ in _COLORS]
    for index, row in enumerate(rows):
        for column, value in enumerate(row):
            if math.isfinite(value):
                fraction = (value - low) / (high - low) if high > low else 0.5
                shade = min(int(fraction * len(_COLORS)), len(_COLORS) - 1)
                paths[shade].append(f"M{column} {len(rows) - 1 - index}h1v1h-1z")
    cells = "".join(f'<path fill="{color}" d="{"".join(path)}"/>' for color, path in zip(_COLORS, paths, strict=True))
    scale = "".join(f'<i style="background:{color}"></i>' for color in _COLORS)
    return f"""<!doctype html><meta charset="utf-8"><style>
body{{font:13px system-ui,sans-serif;margin:8px;color:#333;background:#fff}} svg{{width:100%;height:60vh;display:block}}
div{{display:flex;justify-content:space-between}} i{{display:inline-block;width:4px;height:10px}}</style>
<div><b>{escape(title)}</b><span>{low:.4g} {scale} {high:.4g}</span></div>
<svg viewBox="0 0 {len(columns)} {len(rows)}" preserveAspectRatio="none" shape-rendering="crispEdges">{cells}</svg>
<div><span>{escape(str(columns[0]))}</span><span>{row_name} 0 (bottom) to {len(rows) - 1}</span>\
<span>{escape(str(columns[-1]))}</span></div>
"""
