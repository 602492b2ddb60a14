"""The parts of a page that depend on the runs: texts, tables and figures, for one run or for several."""

import html
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mythos.report.comparable import comparable
from mythos.report.compare import ABSENT, Runs, differences, final_validation, format_value, ranked
from mythos.report.draw import MAX_NAMES
from mythos.report.facts import (
    Fact,
    bits_per_byte,
    describe_model,
    duration,
    facts,
    last_update,
    quantity,
    wall_seconds,
)
from mythos.report.figures.compare import colors
from mythos.report.jobs import Job
from mythos.report.read import Run
from mythos.report.sections import ONE_RUN, SEVERAL_RUNS, SWEEP, Section, T
from mythos.report.units import BITS, NATS
from mythos.report.verdict_lines import anchor, summary, verdict_line
from mythos.report.verdicts.check import Verdict

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
    verdicts: dict[str, Verdict] = {}
    sections = [_section(section, run, plots, verdicts) for section in ONE_RUN]
    return Content(
        kind="Mythos run",
        title=run.config.run.name,
        subtitle=html.escape(describe_model(run.config)),
        facts="\n".join(map(_fact, facts(run))),
        sections=summary(verdicts) + "\n".join(sections),
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
    verdicts: dict[str, Verdict] = {}
    runs, note = comparable(runs)
    best = ranked(runs)[0]
    parts = [_section(section, runs, plots, verdicts) for section in SWEEP] if is_sweep else []
    parts.append(_best_table(runs) if is_sweep else _differences_table(runs))
    if jobs:
        parts.append(_jobs_table(jobs))
    parts += [_section(section, runs, plots, verdicts) for section in SEVERAL_RUNS]
    seconds = sum(job.record.wall_seconds for job in jobs) if jobs else sum(map(wall_seconds, runs.values()))
    labelled = [
        Fact("Runs", f"{len(runs)}"),
        _lowest_loss(runs[best]),
        Fact("Reached by", best),
        Fact("Total tokens", quantity(sum(run.series["tokens"].values[-1] for run in runs.values()))),
        Fact("Total wall time", duration(seconds)),
    ]
    return Content(
        kind="Mythos sweep" if is_sweep else "Mythos runs",
        title=title or _names(runs),
        subtitle=f"Configuration values that differ: {len(differences(runs))}.",
        facts="\n".join(map(_fact, labelled)),
        sections=summary(verdicts) + _note(note) + "\n".join(parts),
        figures=plots,
        last_update=html.escape(max(last_update(run) for run in runs.values())),
    )


def _lowest_loss(run: Run) -> Fact:
    loss = final_validation(run)
    if run.loss_unit == NATS:
        return Fact("Lowest validation loss", f"{loss:.3f} nats", bits_per_byte(run, loss))
    return Fact("Lowest validation loss", f"{loss:.3f} {run.loss_unit}")


def _note(note: str | None) -> str:
    return "" if note is None else f'<p class="note" id="unit">{html.escape(note)}</p>\n'


def _names(runs: Runs) -> str:
    return f"{len(runs)} runs" if len(runs) > MAX_NAMES // 2 else " · ".join(runs)


def figures_as_json(content: Content) -> str:
    """All figures as one JSON object by id; plotly has escaped ``<`` in them."""
    return "{" + ",".join(f"{json.dumps(key)}:{figure}" for key, figure in content.figures.items()) + "}"


def _section(section: Section[T], shown: T, plots: dict[str, str], verdicts: dict[str, Verdict]) -> str:
    """One section as HTML; adds its figures to ``plots``, and its verdict to ``verdicts`` under its title."""
    cards = []
    for plot in section.plots:
        figure = plot.draw(shown)
        if figure is not None:
            key = plot.draw.__name__
            plots[key] = figure.to_json()
            width = (figure.layout.meta or {}).get("min_width")
            style = "" if width is None else f' style="min-width:{width}px"'
            cards.append(
                f'<figure class="{plot.size}"><figcaption>{plot.title}</figcaption>'
                f'<div class="frame"><div class="plot" id="{key}"{style}></div></div></figure>'
            )
    if not cards:
        return ""
    verdict = section.verdict(shown)
    if verdict is not None:
        verdicts[section.title] = verdict
    text = "" if verdict is None else verdict_line(verdict, f"verdict-{anchor(section.title)}")
    row = f'<div class="row">{"".join(cards)}</div>'
    heading = f'<h2 id="{anchor(section.title)}">{section.title}</h2>'
    return f"<section>{heading}{text}<p>{section.note}</p>{row}</section>"


def _differences_table(runs: Runs) -> str:
    """A table with one column per run: final loss, then every configuration value that differs."""
    head = ["", *(f"{_dot(color)}{html.escape(name)}" for name, color in colors(runs).items())]
    rows = [[_loss_name(runs), *(_loss(run) for run in runs.values())]]
    if all(bits := [_bits(run) for run in runs.values()]):
        rows.append([f"validation loss, {BITS}", *bits])
    rows += [[path, *map(format_value, values)] for path, values in differences(runs).items()]
    return _table("differences", "Differences", "Values that are equal in all runs are left out.", head, rows)


def _best_table(runs: Runs) -> str:
    """A table with one row per run, the best first."""
    different, names = differences(runs), list(runs)
    rows = []
    for rank, name in enumerate(ranked(runs)[:_MAX_BEST], start=1):
        values = [format_value(column[names.index(name)]) for column in different.values()]
        rows.append([str(rank), name, _loss(runs[name]), *values])
    head = ["", "run", _loss_name(runs), *map(html.escape, different)]
    note = f"Sorted by final validation loss; {len(rows)} of {len(runs)} runs."
    return _table("best", "Best runs", note, head, rows)


def _jobs_table(jobs: Sequence[Job]) -> str:
    """A table with one row per job, in the order of the plan."""
    rows = [
        [record.name, job.state, record.num_starts, duration(record.wall_seconds), " ".join(record.overrides)]
        for job in jobs
        for record in (job.record,)
    ]
    note = (
        "The last loss of an unfinished job is not comparable with those of finished jobs. Wall time is that of all "
        "starts that have ended, as in table.json."
    )
    return _table("jobs", "Jobs", note, ["job", "state", "starts", "wall time", "overrides"], rows)


def _table(key: str, title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A section with a table; ``head`` is HTML, the cells are text."""
    header = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<div class="wide-table" id="{key}"><table><tr>{header}</tr>{body}</table></div>'
    return f"<section><h2>{title}</h2><p>{note}</p>{table}</section>"


def _dot(color: dict[str, str]) -> str:
    """A dot in a colour that follows the reader's scheme."""
    return f'<i class="dot" style="--on-light:{color["light"]};--on-dark:{color["dark"]}"></i>'


def _loss_name(runs: Runs) -> str:
    """The name of the last validation loss, with its unit."""
    return f"validation loss, {next(iter(runs.values())).loss_unit}"


def _loss(run: Run) -> str:
    """The last validation loss, in the unit of the page; a dash where it has none in that unit."""
    loss = final_validation(run)
    return ABSENT if math.isnan(loss) and run.in_nats is not None else f"{loss:.4f}"


def _bits(run: Run) -> str:
    """The last validation loss in bits per byte beside nats; empty if it is not known or the page is in it anyway."""
    return bits_per_byte(run, final_validation(run)).removesuffix(f" {BITS}") if run.loss_unit == NATS else ""


def _fact(fact: Fact) -> str:
    detail = f"<small>{html.escape(fact.detail)}</small>" if fact.detail else ""
    return f"<div><dt>{html.escape(fact.label)}</dt><dd>{html.escape(fact.value)}{detail}</dd></div>"
