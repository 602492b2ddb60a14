"""The diffs of docs/extending.md apply to this checkout, and what they add works."""

import csv
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import recorded

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
COPIED = ("conf", "data_pipelines", "docs", "launch", "mythos", "tests", "pyproject.toml")
TASK_TEST = "tests/eval/test_harness.py::test_every_task_file_loads_and_renders_its_layout[agi_eval_lsat_ar_local]"
PACKAGES = ("lion", "csv")
TRAIN = """model=debug model.loop.parts=[{kind:momentum}] objective.state_energy=1e-3 optim=foreign optim.name=lion
optim.lr=3e-4 optim.options={beta2:0.98} tracking=foreign tracking.name=csv tracking.options={columns:[train/loss]}
tracking.log_every=1 telemetry.trace_every=2 data.seq_len=32 data.batch_size=4 data.micro_batch_size=2 depth.mean=2
depth.max_loops=4 run.num_steps=2 run.validation.num_batches=2 schedule.num_warmup_steps=1 schedule.cooldown_fraction=0
parallel.device=cpu run.name=extended""".split()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("git") is None, reason="git apply is needed")]


@pytest.fixture(scope="module")
def diffs() -> list[str]:
    return re.findall(r"^```diff\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(diffs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with all diffs of the page applied."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "experiments", "stored"))
        else:
            shutil.copy(source, copy / name)
    for diff in diffs:
        applied = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            input=diff,
            cwd=copy,
            env=os.environ | {"GIT_CEILING_DIRECTORIES": str(copy.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert applied.returncode == 0, f"{diff.splitlines()[0]}\n{applied.stderr}"
    return copy


def run(checkout: Path, *arguments: str, packages: list[Path] | None = None) -> str:
    """Run a module of the copy; returns its output."""
    paths = os.pathsep.join(map(str, [checkout, *(packages or [])]))
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def installed(checkout: Path, name: str) -> Path:
    """Turn a package of the page into an installed one, as pip would; returns the folder that holds it."""
    folder = checkout / "examples" / name
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    sections = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))
    return folder


def test_each_section_has_one_diff(diffs: list[str]) -> None:
    sections = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(sections) == len(diffs) == 8


def test_the_tests_that_the_diffs_change_pass(checkout: Path, diffs: list[str]) -> None:
    changed = [path for diff in diffs for path in re.findall(r"^\+\+\+ b/(tests/.*\.py)$", diff, flags=re.MULTILINE)]
    assert len(changed) == 6
    if find_spec("lm_eval") is not None:
        changed.append(TASK_TEST)
    changed.append("tests/loop/parts/test_part_specs.py")
    run(checkout, "pytest", "-q", "-p", "no:cacheprovider", "-k", "momentum or not test_part_specs", *changed)


def test_a_run_with_the_extensions_trains_decodes_and_exports(checkout: Path, packed: Path, tmp_path: Path) -> None:
    packages = [installed(checkout, name) for name in PACKAGES]
    run(checkout, "mythos.cli.main", "train", *TRAIN, f"data.dir={packed}", f"run.dir={tmp_path}", packages=packages)
    trained = tmp_path / "extended"
    losses = recorded(trained, "train/loss")
    with (trained / "metrics.csv").open(newline="") as file:
        assert {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file)} == losses
    assert list(losses) == [1, 2]
    assert min(recorded(trained, "train/penalty/state_energy").values()) > 0
    assert list(recorded(trained, "loop/momentum/gate")) == [2]
    text = run(checkout, "mythos.cli.main", "sample", str(trained), "--prompt", "the king", "--num-loops", "3",
               "--num-tokens", "3", "--exit-rule", "output_entropy")  # fmt: skip
    assert "the king" in text
    run(checkout, "mythos.cli.main", "export", str(trained), "--to", str(tmp_path / "exported"))
    assert "class Momentum" in (tmp_path / "exported" / "modeling_mythos.py").read_text()
