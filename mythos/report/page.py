"""Assembles the report: one HTML file that needs only a browser."""

import base64
import functools
import gzip
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from mythos.config.base import ConfigError
from mythos.files import write_text
from mythos.report import jobs
from mythos.report.compare import named
from mythos.report.content import MANY_RUNS, Content, figures_as_json, of_run, of_runs
from mythos.report.draw import plotly_javascript
from mythos.report.read import read_run
from mythos.report.theme import DARK, LIGHT, SCHEMES, css_variables, template


def write_report(directories: Sequence[Path], folder: Path | None = None, is_sweep: bool = False) -> Path:
    """Write ``index.html`` about one run, several, or the directory of a sweep, and return its path.

    Args:
        folder: folder to write to; None takes ``report`` in the run's directory, or beside the first of several.
        is_sweep: show several runs as a sweep even if they are few.

    Raises:
        ConfigError: a directory is neither a run nor a sweep, or the page cannot be written.
    """
    text = render(read_content(directories, is_sweep))
    if folder is None:
        folder = (directories[0] if len(directories) == 1 else directories[0].parent) / "report"
    path = folder / "index.html"
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path}: the report cannot be written ({error.strerror}); make room there or allow writing."
        ) from None
    return path


def read_content(directories: Sequence[Path], is_sweep: bool = False) -> Content:
    """The content of the page about these run directories, or about the directory of one sweep.

    Raises:
        ConfigError: a directory is not a run.
    """
    if len(directories) == 1 and jobs.is_sweep(directories[0]):
        return _of_sweep(directories[0])
    runs = [read_run(directory) for directory in directories]
    if len(runs) == 1:
        return of_run(runs[0])
    return of_runs(named(runs, list(directories)), is_sweep or len(runs) > MANY_RUNS)


def _of_sweep(directory: Path) -> Content:
    """The page of a sweep: the jobs that have metrics as runs, and the states of all jobs."""
    all_jobs = jobs.read_jobs(directory)
    started = [job for job in all_jobs if jobs.has_metrics(job)]
    if not started:
        raise ConfigError(f"{directory}: none of its {len(all_jobs)} jobs has logged a step yet; wait for one.")
    runs = {job.record.name: read_run(job.directory) for job in started}
    return of_runs(runs, is_sweep=True, title=jobs.read_plan(directory)["name"], jobs=all_jobs)


def render(content: Content, version: str | None = None) -> str:
    """The whole page as text; equal runs give equal pages.

    Args:
        version: version of a served page, which polls for newer content; None makes a stand-alone page.
    """
    resources = files("mythos.report")
    page = Template(resources.joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(
        kind=content.kind,
        title=html.escape(content.title),
        subtitle=content.subtitle,
        facts=content.facts,
        sections=content.sections,
        last_update=content.last_update,
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        themes=json.dumps({scheme: template(palette) for scheme, palette in SCHEMES.items()}),
        figures=figures_as_json(content),
        connect="'none'" if version is None else "'self'",
        version=json.dumps(version),
        script=resources.joinpath("page.js").read_text(encoding="utf-8"),
        plotly=_packed_plotly(),
    )


@functools.cache
def _packed_plotly() -> str:
    """The plotting library, compressed, in base64."""
    return base64.b64encode(gzip.compress(plotly_javascript().encode(), mtime=0)).decode()
