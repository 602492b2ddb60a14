import itertools
import subprocess
import sys

import numpy as np
import pytest

from mythos.report.draw import MAX_NAMES
from mythos.report.static_style import COLORS, MAX_RUNS, line_styles, log_ticks, scientific, short
from mythos.report.theme import DARK, LIGHT, Palette

# What deuteranopes and protanopes see of linear RGB: Machado, Oliveira and Fernandes, IEEE TVCG 15, 1291, 2009.
SEEN = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "everybody": np.eye(3),
}
SRGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, seen: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of a hex colour, as seen."""
    srgb = np.array(list(bytes.fromhex(color[1:]))) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = SRGB_TO_XYZ @ np.clip(np.array(seen) @ linear, 0, 1) / SRGB_TO_XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_any_two_colours_differ_for_colour_blind_readers_too(seen: np.ndarray, palette: Palette) -> None:
    verdicts = (palette.good, palette.fair, palette.bad)
    for colors in (palette.categories, verdicts, (palette.train, palette.validation)):
        differences = [np.linalg.norm(lab(a, seen) - lab(b, seen)) for a, b in itertools.combinations(colors, 2)]
        assert min(differences) > 15  # 2.3 is a just noticeable difference


def test_figures_and_page_share_their_colours() -> None:
    assert COLORS == LIGHT.categories == (*DARK.categories[:-1], "#000000")
    assert len(COLORS) == MAX_NAMES


def test_every_run_has_a_distinct_style() -> None:
    result = line_styles(map(str, range(MAX_RUNS)))
    assert len(result) == len(set(result.values())) == MAX_RUNS == 21


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1, 250], [1, 10, 100]),
        ([2.5e3, 1.5e4], [5e3, 1e4]),
        ([6, 50, np.nan, np.inf, -1, 0], [10, 20, 50]),
        ([2.6, 4.1], [3, 4]),
        ([2.1, 2.2], [2.1, 2.2]),
        ([7], [7]),
        ([np.nan], []),
    ],
)
def test_ticks_of_a_logarithmic_axis(values: list[float], ticks: list[float]) -> None:
    assert log_ticks(values) == pytest.approx(ticks)


def test_numbers_on_the_axes() -> None:
    assert [short(number) for number in (5, 999.7, 2e4, 1.5e6, 3e9, 4e12)] == ["5", "1k", "20k", "1.5M", "3B", "4T"]
    assert [scientific(number) for number in (1e15, 2e10, 1.5e-4)] == ["10¹⁵", "2·10¹⁰", "1.5·10⁻⁴"]


def test_a_missing_matplotlib_is_reported_in_one_sentence() -> None:
    code = "import sys\nsys.modules['matplotlib'] = None\nfrom mythos.cli.main import main\n"
    code += "sys.exit(main(['figures', 'nowhere', '--to', 'out']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    command = "pip install -e '.[report]' in a clone of Mythos"
    assert done.stderr == f"mythos: matplotlib, which draws the figures, is not installed; run {command}.\n"
