"""Assembles the report: one HTML file that needs nothing but a browser."""

import base64
import gzip
import html
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from mythos.config.base import ConfigError
from mythos.files import write_text
from mythos.report import figures
from mythos.report.facts import facts, last_record, model_in_words
from mythos.report.read import Run, read_run
from mythos.report.theme import DARK, LIGHT, SCHEMES, css_variables, template


class Plot(NamedTuple):
    """A figure and its caption."""

    title: str
    draw: Callable[[Run], Any]


class Section(NamedTuple):
    """Plots that belong together; left out when all of them are absent."""

    title: str
    note: str
    plots: tuple[Plot, ...]


SECTIONS = (
    Section(
        "Loss",
        "Each training step runs at a depth of its own; validation reads the same text every time.",
        (Plot("Training and validation", figures.loss),),
    ),
    Section(
        "What a loop is worth",
        "Held-out loss after T passes over the core, all depths from one forward. Lines that lie on each "
        "other mean that the model ignores its loops. The dotted line marks the mean depth of training.",
        (
            Plot("By depth, over training", figures.loss_by_depth),
            Plot("At the last look", figures.loss_over_depth),
        ),
    ),
    Section(
        "The recurrent state",
        "Root mean square of the state after each loop. A norm that levels off over the loops has found its "
        "fixed point; one that keeps growing is on its way to diverge. Gaps: loops that a step did not run.",
        (
            Plot("Norm by loop, over training", figures.state_norms),
            Plot("Norm against the loop, by quarter of the run", figures.state_norm_profile),
        ),
    ),
)


def write_report(run_directory: Path) -> Path:
    """Write ``report/index.html`` into a run directory and return its path.

    Raises:
        ConfigError: the directory is no run, or cannot be written.
    """
    text = render(read_run(run_directory))
    path = run_directory / "report" / "index.html"
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path}: the report cannot be written ({error.strerror}); make room there or allow writing."
        ) from None
    return path


def render(run: Run) -> str:
    """The whole page as text; equal runs give equal pages."""
    plots: dict[str, str] = {}
    body = "\n".join(_section(section, run, plots) for section in SECTIONS)
    page = Template(files("mythos.report").joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(
        name=html.escape(run.config.run.name),
        model=html.escape(model_in_words(run.config)),
        facts="\n".join(_fact(label, value) for label, value in facts(run)),
        sections=body,
        last_record=html.escape(last_record(run)),
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        themes=json.dumps({scheme: template(palette) for scheme, palette in SCHEMES.items()}),
        figures="{" + ",".join(f'"{key}":{figure}' for key, figure in plots.items()) + "}",
        plotly=base64.b64encode(gzip.compress(figures.plotly_javascript().encode(), mtime=0)).decode(),
    )


def _section(section: Section, run: Run, plots: dict[str, str]) -> str:
    """One section as HTML; its figures are added to ``plots`` as JSON, in which plotly escapes ``<``."""
    cards = []
    for plot in section.plots:
        figure = plot.draw(run)
        if figure is not None:
            key = plot.draw.__name__
            plots[key] = figure.to_json()
            cards.append(f'<figure><figcaption>{plot.title}</figcaption><div class="plot" id="{key}"></div></figure>')
    if not cards:
        return ""
    return f'<section><h2>{section.title}</h2><p>{section.note}</p><div class="row">{"".join(cards)}</div></section>'


def _fact(label: str, value: str) -> str:
    return f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>"
