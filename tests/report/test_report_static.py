import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.report.read import read_run
from mythos.report.spent import spent
from mythos.report.static import labels, write_figures
from mythos.report.static_style import COLORS
from mythos.report.theme import LIGHT

MakeRun = Callable[..., Path]
SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"
FILES = ["loss.svg", "depth.svg", "norms.svg", "exits.svg"]


def group(inside: ElementTree.Element, name: str) -> ElementTree.Element:
    """The group of an SVG with this id."""
    return next(element for element in inside.iter(f"{SVG}g") if element.get("id") == name)


def numbers_of(text: str) -> float:
    """The number that a tick's label writes: 20k, 2·10¹³."""
    text = text.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹−", "0123456789-"))
    factor, _, power = text.rpartition("·") if "·" in text else ("1", "", text)
    if "·" in text or re.fullmatch(r"10\d{2}", text):
        return float(factor) * 10 ** int(power[2:])
    return float(text.rstrip("kM")) * {"k": 1e3, "M": 1e6}.get(text[-1], 1)


def scale(panel: ElementTree.Element, axis: str, is_log: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Points of the page to numbers of an axis, by its outermost ticks."""
    positions, numbers = [], []
    for tick in panel.iter(f"{SVG}g"):
        if str(tick.get("id")).startswith(f"{axis}tick"):
            positions.append([float(use.get(axis)) for use in tick.iter(f"{SVG}use")][-1])
            numbers.append(numbers_of(next(tick.iter(f"{SVG}text")).text))
    known = np.log(numbers) if is_log else np.array(numbers)
    slope = (known[-1] - known[0]) / (positions[-1] - positions[0])
    return lambda points: (np.exp if is_log else np.array)(known[0] + slope * (points - positions[0]))


def lines_of(panel: ElementTree.Element, color: str) -> list[np.ndarray]:
    """The lines of a colour as [points, 2], in points of the page."""
    result = []
    for element in panel.iter(f"{SVG}g"):
        paths = element.findall(f"{SVG}path")
        if str(element.get("id")).startswith("line2d") and paths and f"stroke: {color}" in paths[0].get("style"):
            words = re.findall(r"[ML] (\S+) (\S+)", paths[0].get("d"))
            result.append(np.array(words, dtype=float))
    return result


@pytest.fixture
def runs(make_run: MakeRun) -> list[Path]:
    def make(name: str, mean: int) -> Path:
        options = {"trace_every": 20, "num_steps": 400, "name": f"runs/{name}", "is_evaluated": True}
        return make_run(f"depth.mean={mean}", **options)

    return [make("shallow", 4), make("deep", 8)]


def test_the_lines_are_the_losses_and_costs_of_the_runs(runs: list[Path], tmp_path: Path) -> None:
    write_figures(runs, tmp_path / "out")
    tree = ElementTree.parse(tmp_path / "out" / "loss.svg").getroot()
    heights = scale(group(tree, "axes_1"), "y", is_log=False)
    for run, color in zip(runs, COLORS, strict=False):
        result = spent(read_run(run))
        assert result is not None
        for panel_name, cost in zip(
            ("axes_1", "axes_2", "axes_3"), (result.tokens, result.flops, result.seconds), strict=True
        ):
            panel = group(tree, panel_name)
            (line,) = lines_of(panel, color)
            np.testing.assert_allclose(heights(line[:, 1]), result.loss, rtol=1e-5)
            np.testing.assert_allclose(scale(panel, "x", is_log=True)(line[:, 0]), cost, rtol=1e-5)
    words = [element.text for element in tree.iter(f"{SVG}text")]
    assert {"shallow, T = 4", "deep, T = 8", "training FLOPs"} <= set(words)


def test_depth_sweeps_are_drawn_with_their_fits_and_the_mean_depth(runs: list[Path], tmp_path: Path) -> None:
    write_figures(runs[1:], tmp_path / "out")
    panel = group(ElementTree.parse(tmp_path / "out" / "depth.svg").getroot(), "axes_1")
    loops, heights = scale(panel, "x", is_log=True), scale(panel, "y", is_log=False)
    (curve,), (fitted,) = lines_of(panel, COLORS[0]), lines_of(panel, LIGHT.text)
    exact = [2.4 + np.exp(-loops_run / 4) for loops_run in range(1, 13)]
    np.testing.assert_allclose(loops(curve[:, 0]), range(1, 13), rtol=1e-5)
    np.testing.assert_allclose(heights(curve[:, 1]), exact, rtol=1e-5)
    np.testing.assert_allclose(heights(fitted[:, 1]), 2.4 + np.exp(-loops(fitted[:, 0]) / 4), rtol=1e-4)
    marks = [use for use in panel.iter(f"{SVG}use") if f"stroke: {COLORS[0]}" in use.get("style", "")]
    (ring,) = [use for use in marks if "fill-opacity: 0" in use.get("style")]
    at = loops(np.array([float(ring.get("x"))])), heights(np.array([float(ring.get("y"))]))
    assert np.ravel(at) == pytest.approx([8, 2.4 + np.exp(-2)], rel=1e-4)


def test_exit_rules_are_those_of_the_first_run_with_a_sweep(
    runs: list[Path], make_run: MakeRun, tmp_path: Path
) -> None:
    bare = make_run(num_steps=400, name="runs/bare")
    lines = write_figures([bare, *runs], tmp_path / "out")
    tree = ElementTree.parse(tmp_path / "out" / "exits.svg").getroot()
    words = [element.text for element in tree.iter(f"{SVG}text")]
    assert {"shallow", "relative change", "stable argmax", "T loops, all tokens"} <= set(words)
    panel = group(tree, "axes_1")
    (line,) = lines_of(panel, COLORS[1])
    np.testing.assert_allclose(scale(panel, "x", is_log=False)(line[:, 0]), [2.5, 3.5, 4.5], rtol=1e-5)
    expected = [2.5 + 0.5 / number for number in (1, 2, 3)]
    np.testing.assert_allclose(scale(panel, "y", is_log=False)(line[:, 1]), expected, rtol=1e-5)
    assert [line.removeprefix(f"{tmp_path / 'out'}/") for line in lines] == [
        "loss.svg without bare: no validation and mean depth logged (run.validation.every)",
        "depth.svg without bare: no depth sweep (mythos evaluate RUN depth-sweep)",
        "norms.svg",
        "exits.svg of shallow",
    ]


def test_runs_of_different_tokenizers_are_drawn_in_bits_per_byte(make_run: MakeRun, tmp_path: Path) -> None:
    texts = {"a": ("x", 3.0), "b": ("y", 4.0)}
    runs = [make_run(num_steps=400, trace_every=20, is_evaluated=True, name=n, text=text) for n, text in texts.items()]
    note, *_ = write_figures(runs, tmp_path / "out")
    assert note.startswith("The runs have 2 different tokenizers")
    for name, title in (("loss", "validation loss"), ("depth", "loss"), ("exits", "loss")):
        tree = ElementTree.parse(tmp_path / "out" / f"{name}.svg").getroot()
        words = [element.text for element in tree.iter(f"{SVG}text")]
        assert f"{title} (bits per byte)" in words
        assert not any("nats" in (word or "") for word in words)
    panel = group(ElementTree.parse(tmp_path / "out" / "loss.svg").getroot(), "axes_1")
    (line,) = lines_of(panel, COLORS[1])
    nats = spent(read_run(runs[1])).loss
    expected = nats / np.log(2) / 4
    np.testing.assert_allclose(scale(panel, "y", is_log=False)(line[:, 1]), expected, rtol=1e-4)


def test_equal_runs_give_equal_files_whatever_the_matplotlibrc(runs: list[Path], tmp_path: Path) -> None:
    write_figures(runs, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "black"}):
        write_figures(runs, tmp_path / "b")
    for name in FILES:
        text = (tmp_path / "a" / name).read_text()
        assert text == (tmp_path / "b" / name).read_text()
        assert "<dc:date>" not in text
        assert "Matplotlib" not in text
        assert not re.search(r"[ \t]$", text, re.MULTILINE)
        assert 'width="597.6pt"' in text  # 800 pixels


def test_a_long_run_gives_a_small_file_that_keeps_its_extremes(make_run: MakeRun, tmp_path: Path) -> None:
    lines = [{"schema": records.SCHEMA}]
    for step in range(1, 20001):
        lines.append({"step": step, "time": float(step), "tokens": 100 * step, records.MEAN_LOOPS: 8})
        lines[-1] |= {
            records.NUM_LOOPS: 8,
            records.validation_loss(8): 9.0 if step == 777 else 3 - step / 2e4,
            records.NUM_GRAD_LOOPS: 4,
        }
    write_figures([make_run(num_steps=20000, lines=lines)], tmp_path / "out")
    path = tmp_path / "out" / "loss.svg"
    assert path.stat().st_size < 100_000
    panel = group(ElementTree.parse(path).getroot(), "axes_1")
    (line,) = lines_of(panel, COLORS[0])
    assert len(line) <= 300
    shown = scale(panel, "y", is_log=False)(line[:, 1])
    assert (shown.min(), shown.max()) == pytest.approx((2.0, 9.0), rel=1e-4)
    assert not (tmp_path / "out" / "depth.svg").exists()


def test_names_leave_out_the_folder_that_all_runs_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert labels([Path("runs/a"), tmp_path / "runs" / "b"]) == ["a", "b"]
    assert labels([Path("x/a"), Path("y/a")]) == ["x/a", "y/a"]
    assert labels([Path()]) == [tmp_path.name]
    with pytest.raises(ConfigError, match=r"^runs/a: the run was given 2 times; give it once\.$"):
        labels([Path("runs/a"), Path("runs/../runs/a")])


def test_runs_that_cannot_be_drawn_are_refused_in_one_sentence(make_run: MakeRun, tmp_path: Path) -> None:
    lines = [{"schema": records.SCHEMA}, {"step": 1, "time": 0.0, "tokens": 10, records.TRAIN_LOSS: 3.0}]
    young = make_run(lines=lines)
    with pytest.raises(ConfigError, match="nothing to draw yet; wait for the first validation"):
        write_figures([young], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"22 runs were given, but a figure can distinguish at most 21"):
        write_figures([young] * 22, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="the figure cannot be written"):
        write_figures([make_run(num_steps=100, name="other")], tmp_path / "file")
