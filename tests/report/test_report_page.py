import argparse
import base64
import gzip
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mythos.cli import report as command
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.report.facts import duration, quantity
from mythos.report.jobs import PLAN_FILE, JobRecord, write_record
from mythos.report.page import write_report
from mythos.report.read import read_run
from mythos.report.sections import ONE_RUN, SEVERAL_RUNS
from mythos.sweep.table import as_text, read_rows

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """Attributes, headings and texts of scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.scripts: dict[str, str] = {}
        self.headings: list[str] = []
        self.inside: tuple[str, str] = ("", "")
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [values[name] for name in ("src", "href", "action", "data") if name in values]
        self.inside = (tag, values.get("id", ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ("", "")

    def handle_data(self, data: str) -> None:
        tag, name = self.inside
        if tag == "script":
            self.scripts[name] = self.scripts.get(name, "") + data
        if tag in ("h1", "h2"):
            self.headings.append(data)


def test_the_header_shows_progress_and_losses(make_run: MakeRun) -> None:
    directory = make_run()
    text = write_report([directory]).read_text()
    series = read_run(directory).series
    assert "<h1>quickstart-moe</h1>" in text
    assert "<dt>Steps of 2,000</dt><dd>2,000</dd>" in text
    assert "<dd>8.19 million</dd>" in text
    assert "<dd>8 min 18 s</dd>" in text
    one_loop, eight_loops = (series[records.validation_loss(num_loops)].values[-1] for num_loops in (1, 8))
    assert f"<dt>Validation loss, T = 8</dt><dd>{eight_loops:.3f} nats</dd>" in text
    assert f"<dt>Gained from T = 1 to 8</dt><dd>{one_loop - eight_loops:.3f} nats</dd>" in text
    assert f"<dd>{series[records.TRAIN_LOSS].values[-5:].mean():.3f} nats</dd>" in text


def test_the_page_includes_its_plots_and_the_plotting_library(make_run: MakeRun) -> None:
    page = Page(write_report([make_run()]).read_text())
    drawn = json.loads(page.scripts["figures"])
    names = ["loss", "loss_by_num_loops", "loss_over_num_loops", "loops_drawn", "state_norms", "state_norm_profile"]
    assert list(drawn) == names
    assert page.tags.count("figure") == 6
    assert page.headings[1:] == ["Loss", "Loss by number of loops", "The recurrent state"]
    assert json.loads(page.scripts["themes"]).keys() == {"light", "dark"}
    library = gzip.decompress(base64.b64decode(page.scripts["plotly"])).decode()
    assert library.lstrip().startswith("/**\n* plotly.js v")


def test_the_page_loads_nothing_from_elsewhere(make_run: MakeRun) -> None:
    text = write_report([make_run()]).read_text()
    page = Page(text)
    assert all(address.startswith("#section-") for address in page.addresses)
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text


def test_a_section_without_series_is_left_out(make_run: MakeRun) -> None:
    line = {"step": 1, "time": 1.0, "tokens": 1, records.TRAIN_LOSS: 2.5}
    page = Page(write_report([make_run(lines=[{"schema": records.SCHEMA}, line])]).read_text())
    assert page.headings[1:] == ["Loss"]
    assert list(json.loads(page.scripts["figures"])) == ["loss"]


def test_a_run_with_every_series_fills_every_plot(make_run: MakeRun) -> None:
    page = Page(write_report([make_run(trace_every=50, is_evaluated=True)]).read_text())
    every = [plot.draw.__name__ for section in ONE_RUN for plot in section.plots]
    assert len(set(every)) == len(every)
    assert list(json.loads(page.scripts["figures"])) == every
    assert page.headings[1:] == [section.title for section in ONE_RUN]


def test_a_long_run_of_many_loops_stays_under_five_megabytes(make_run: MakeRun) -> None:
    directory = make_run(
        num_steps=10_000, num_loops=32, log_every=1, validated=(1, 2, 4, 8, 16, 32), trace_every=50, num_experts=64
    )
    assert write_report([directory]).stat().st_size < 5_000_000


def test_the_header_counts_parameters_and_names_the_best_validation(make_run: MakeRun) -> None:
    directory = make_run("model=debug", validated=(1, 8))
    text = write_report([directory]).read_text()
    assert "<dt>Parameters</dt><dd>73.5 thousand, 61.2 active</dd>" in text
    best = read_run(directory).series[records.validation_loss(8)].values.min()
    assert f"<dt>Best validation, T = 8, step 2,000</dt><dd>{best:.3f} nats</dd>" in text


def test_several_runs_share_a_page_with_a_table_of_what_differs(make_run: MakeRun, tmp_path: Path) -> None:
    changes = {"a": ("optim.lr=0.01", "run.name='<one>'"), "b": ("optim.lr=0.02", "run.name=two", "depth.mean=4")}
    runs = [make_run(*change, num_steps=200, trace_every=20, name=name) for name, change in changes.items()]
    path = write_report(runs)
    assert path == tmp_path / "report" / "index.html"
    text = path.read_text()
    assert "<h1>&lt;one&gt; · two</h1>" in text
    assert "<tr><td>optim.lr</td><td>0.01</td><td>0.02</td></tr>" in text
    assert "<tr><td>depth.mean</td><td>8</td><td>4</td></tr>" in text
    assert "optim.beta1" not in text
    drawn = json.loads(Page(text).scripts["figures"])
    assert list(drawn) == [plot.draw.__name__ for section in SEVERAL_RUNS for plot in section.plots]
    assert [[trace["name"] for trace in figure["data"]] for figure in drawn.values()] == [["<one>", "two"]] * len(drawn)


def test_many_runs_or_the_option_make_a_sweep_with_a_table_of_the_best(make_run: MakeRun) -> None:
    runs = [
        make_run(f"optim.lr={lr}", f"depth.mean={depth}", num_steps=100, name=f"{lr}-{depth}", validated=(1, 4, 8))
        for lr in (0.001, 0.01, 0.1)
        for depth in (4, 8)
    ]
    few, many = (Page(write_report(some).read_text()) for some in (runs[:3], [*runs, runs[0]]))
    requested = Page(write_report(runs[:3], is_sweep=True).read_text())
    assert "parallel_coordinates" not in json.loads(few.scripts["figures"])
    assert few.headings[1] == "Differences"
    for page in (many, requested):
        assert next(iter(json.loads(page.scripts["figures"]))) == "parallel_coordinates"
        assert page.headings[1:3] == ["Configuration and loss", "Best runs"]


def test_a_sweeps_page_states_the_wall_times_of_its_table(make_run: MakeRun, tmp_path: Path) -> None:
    """The first run logs for 25 s, of which its job took 59.46 s in all; the last line of metrics is not the end."""
    directory = tmp_path / "sweep"
    seconds = {"sweep/a": 59.46, "sweep/b": 3661.0}
    for name in seconds:
        write_record(make_run(num_steps=100, name=name), JobRecord(name=name[6:], seconds=seconds[name], num_starts=1))
    plan = {"schema": records.SCHEMA, "name": "s", "jobs": [{"name": name, "overrides": []} for name in "ab"]}
    (directory / PLAN_FILE).write_text(json.dumps(plan))
    text = write_report([directory]).read_text()
    printed = as_text(read_rows(directory)).splitlines()
    times = [duration(59.5), duration(3661)]
    assert [line.split("  ")[-1] for line in printed[1:]] == times
    assert [
        re.search(rf"<td>{name}</td>.*?</tr>", text[text.index('id="jobs"') :])[0].count(time)
        for name, time in zip("ab", times, strict=True)
    ] == [1, 1]
    assert f"<dt>Total wall time</dt><dd>{duration(3720.5)}</dd>" in text


def test_the_header_states_bits_per_byte_where_the_bytes_per_token_are_known(make_run: MakeRun) -> None:
    directory = make_run(num_steps=200, text=("x", 4.0))
    text = write_report([directory]).read_text()
    loss = read_run(directory).series[records.validation_loss(8)].values[-1]
    bits = loss / math.log(2) / 4
    assert f"<dt>Validation loss, T = 8</dt><dd>{loss:.3f} nats<small>{bits:.3f} bits per byte</small></dd>" in text
    points = json.loads(Page(text).scripts["figures"])["loss_over_num_loops"]["data"]
    assert "bits per byte" in points[-1]["hovertemplate"]


def test_runs_of_different_tokenizers_are_compared_in_bits_per_byte_only(make_run: MakeRun) -> None:
    texts = {"a": ("x", 3.0), "b": ("y", 4.0), "c": ("z", None)}
    runs = [make_run(num_steps=200, name=name, trace_every=20, text=text) for name, text in texts.items()]
    text = write_report(runs).read_text()
    assert "The runs have 3 different tokenizers" in text
    assert f"The losses of {runs[2]} are left out" in text
    drawn = json.loads(Page(text).scripts["figures"])
    assert "nats per token)" not in json.dumps(drawn)
    assert drawn["validations"]["layout"]["yaxis"]["title"]["text"] == "loss (bits per byte)"
    assert [trace["name"] for trace in drawn["validations"]["data"]] == [str(run) for run in runs[:2]]
    nats = read_run(runs[0]).series[records.validation_loss(8)].values[-1]
    cells = [f"{nats / math.log(2) / size:.4f}" for size in (3, 4)]
    assert f"<td>validation loss, bits per byte</td><td>{cells[0]}</td><td>{cells[1]}</td><td>–</td>" in text
    assert f"<dt>Lowest validation loss</dt><dd>{nats / math.log(2) / 4:.3f} bits per byte</dd>" in text


def test_a_hostile_name_stays_text(make_run: MakeRun) -> None:
    name = "</title><script>alert(1)</script>&$name"
    directory = make_run(num_steps=50)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["run"]["name"] = name
    path.write_text(json.dumps(config))
    text = write_report([directory]).read_text()
    assert "alert(1)</script>" not in text
    assert "<h1>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;$name</h1>" in text
    assert Page(text).headings[0] == name


def test_equal_runs_give_equal_pages_and_a_second_report_replaces_the_first(make_run: MakeRun) -> None:
    directory = make_run(num_steps=50)
    first = write_report([directory]).read_bytes()
    (directory / "report" / "index.html").write_text("old")
    assert write_report([directory]).read_bytes() == first
    assert os.listdir(directory / "report") == ["index.html"]  # noqa: PTH208


def test_a_full_disk_leaves_the_old_page_and_no_leftovers(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_run(num_steps=50)
    first = write_report([directory]).read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\); make room"):
        write_report([directory])
    assert [path.name for path in (directory / "report").iterdir()] == ["index.html"]
    assert (directory / "report" / "index.html").read_bytes() == first


def test_the_command_prints_the_path_of_the_page(make_run: MakeRun, capsys: pytest.CaptureFixture) -> None:
    directory = make_run(num_steps=50)
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["report", str(directory), str(directory)])
    assert args.run(args) == 0
    assert capsys.readouterr().out.strip() == str(directory.parent / "report" / "index.html")
    args = parser.parse_args(["report", str(directory), "--to", str(directory / "there")])
    assert args.run(args) == 0
    assert capsys.readouterr().out.strip() == str(directory / "there" / "index.html")


def test_a_sweep_of_one_run_is_refused(make_run: MakeRun) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["report", str(make_run(num_steps=50)), "--sweep"])
    with pytest.raises(ConfigError, match=r"--sweep: 1 run was given; a sweep compares at least 2"):
        args.run(args)


def test_a_missing_plotly_is_reported_in_one_sentence() -> None:
    code = "import sys; sys.modules['plotly'] = None; import mythos.report.page"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    command = re.escape("pip install -e '.[report]' in a clone of Mythos")
    assert re.search(rf"ConfigError: plotly, .* is not installed; run {command}\.$", last)


def test_the_report_needs_no_torch() -> None:
    code = "import sys, mythos.report.page; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (498, "8 min 18 s"), (4350, "1 h 12 min"), (360_000, "4 d 4 h")],
)
def test_durations_as_text(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(512, "512"), (999_900, "1 million"), (32_768_000, "32.8 million"), (3.1e12, "3.1 trillion")],
)
def test_quantities_as_text(count: float, words: str) -> None:
    assert quantity(count) == words
