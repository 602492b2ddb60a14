"""The parts of a page that depend on the runs: texts, tables and figures, for one run or for several."""

import html
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mythos.report.compare import differences, final_validation, format_value, ranked
from mythos.report.draw import MAX_NAMES
from mythos.report.facts import describe_model, duration, facts, last_update, quantity, wall_seconds
from mythos.report.figures.compare import Runs, colors
from mythos.report.jobs import Job
from mythos.report.read import Run
from mythos.report.sections import ONE_RUN, SEVERAL_RUNS, SWEEP, Section, T

MANY_RUNS = 6
"""More runs than this are shown as a sweep."""
_MAX_BEST = 20
"""Rows of the table of a sweep."""


class Content(NamedTuple):
    """What a page shows; all but the title is HTML or JSON."""

    kind: str
    title: str
    subtitle: str
    facts: str
    sections: str
    figures: dict[str, str]
    """Figure by the id of its HTML element."""
    last_update: str


def of_run(run: Run) -> Content:
    """The page of one run."""
    plots: dict[str, str] = {}
    return Content(
        kind="Mythos run",
        title=run.config.run.name,
        subtitle=html.escape(describe_model(run.config)),
        facts="\n".join(_fact(label, value) for label, value in facts(run)),
        sections="\n".join(_section(section, run, plots) for section in ONE_RUN),
        figures=plots,
        last_update=html.escape(last_update(run)),
    )


def of_runs(runs: Runs, is_sweep: bool, title: str | None = None, jobs: Sequence[Job] = ()) -> Content:
    """The page of several runs; that of a sweep begins with a plot of the differing values against the loss.

    Args:
        title: title of the page; None takes the names of the runs, or their number.
        jobs: jobs of a sweep that ``mythos sweep`` runs, including those without metrics.
    """
    plots: dict[str, str] = {}
    best = ranked(runs)[0]
    parts = [_section(section, runs, plots) for section in SWEEP] if is_sweep else []
    parts.append(_best_table(runs) if is_sweep else _differences_table(runs))
    if jobs:
        parts.append(_jobs_table(jobs))
    parts += [_section(section, runs, plots) for section in SEVERAL_RUNS]
    labelled = [
        ("Runs", f"{len(runs)}"),
        ("Lowest validation loss", f"{final_validation(runs[best]):.3f} nats"),
        ("Reached by", best),
        ("Total tokens", quantity(sum(run.series["tokens"].values[-1] for run in runs.values()))),
        ("Total wall time", duration(sum(wall_seconds(run) for run in runs.values()))),
    ]
    return Content(
        kind="Mythos sweep" if is_sweep else "Mythos runs",
        title=title or _names(runs),
        subtitle=f"Configuration values that differ: {len(differences(runs))}.",
        facts="\n".join(_fact(label, value) for label, value in labelled),
        sections="\n".join(parts),
        figures=plots,
        last_update=html.escape(max(last_update(run) for run in runs.values())),
    )


def _names(runs: Runs) -> str:
    return f"{len(runs)} runs" if len(runs) > MAX_NAMES // 2 else " · ".join(runs)


def figures_as_json(content: Content) -> str:
    """All figures as one JSON object by id; plotly has escaped ``<`` in them."""
    return "{" + ",".join(f"{json.dumps(key)}:{figure}" for key, figure in content.figures.items()) + "}"


def _section(section: Section[T], shown: T, plots: dict[str, str]) -> str:
    """One section as HTML; adds its figures to ``plots``."""
    cards = []
    for plot in section.plots:
        figure = plot.draw(shown)
        if figure is not None:
            key = plot.draw.__name__
            plots[key] = figure.to_json()
            cards.append(
                f'<figure class="{plot.size}"><figcaption>{plot.title}</figcaption>'
                f'<div class="frame"><div class="plot" id="{key}"></div></div></figure>'
            )
    if not cards:
        return ""
    verdict = section.verdict(shown)
    text = "" if verdict is None else f"<p><strong>{html.escape(verdict)}</strong></p>"
    row = f'<div class="row">{"".join(cards)}</div>'
    return f"<section><h2>{section.title}</h2><p>{section.note}</p>{text}{row}</section>"


def _differences_table(runs: Runs) -> str:
    """A table with one column per run: final loss, then every configuration value that differs."""
    head = ["", *(f"{_dot(color)}{html.escape(name)}" for name, color in colors(runs).items())]
    rows = [["validation loss", *(_loss(run) for run in runs.values())]]
    rows += [[path, *map(format_value, values)] for path, values in differences(runs).items()]
    return _table("differences", "Differences", "Values that are equal in all runs are left out.", head, rows)


def _best_table(runs: Runs) -> str:
    """A table with one row per run, the best first."""
    different, names = differences(runs), list(runs)
    rows = []
    for rank, name in enumerate(ranked(runs)[:_MAX_BEST], start=1):
        values = [format_value(column[names.index(name)]) for column in different.values()]
        rows.append([str(rank), name, _loss(runs[name]), *values])
    head = ["", "run", "validation loss", *map(html.escape, different)]
    note = f"Sorted by final validation loss; {len(rows)} of {len(runs)} runs."
    return _table("best", "Best runs", note, head, rows)


def _jobs_table(jobs: Sequence[Job]) -> str:
    """A table with one row per job, in the order of the plan."""
    rows = [[job.record.name, job.state, job.record.num_starts, " ".join(job.record.overrides)] for job in jobs]
    note = "The last loss of an unfinished job is not comparable with those of finished jobs."
    return _table("jobs", "Jobs", note, ["job", "state", "starts", "overrides"], rows)


def _table(key: str, title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A section with a table; ``head`` is HTML, the cells are text."""
    header = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<div class="wide-table" id="{key}"><table><tr>{header}</tr>{body}</table></div>'
    return f"<section><h2>{title}</h2><p>{note}</p>{table}</section>"


def _dot(color: dict[str, str]) -> str:
    """A dot in a colour that follows the reader's scheme."""
    return f'<i class="dot" style="--on-light:{color["light"]};--on-dark:{color["dark"]}"></i>'


def _loss(run: Run) -> str:
    return f"{final_validation(run):.4f}"


def _fact(label: str, value: str) -> str:
    return f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>"
