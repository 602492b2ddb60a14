"""Mistakes in the loop parts of a configuration: one sentence before torch is imported, and exit status 2."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from foreign_part import TIDE, write_package

from mythos.cli.main import main
from mythos.config.parts import PARTS

BAD = "from mythos.config.part_spec import PartSpec\n\nclass Empty:\n    config = None\n"
LACKS = "model.loop.parts.0.name: bad_parts:Empty of bad_parts 0.3 lacks build, family, "


@pytest.fixture
def tide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(write_package(tmp_path / "site"))
    yield
    for name in [name for name in sys.modules if name.startswith("tide_parts")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ("{kind: flim}", f"model.loop.parts.0.kind: 'flim' was given; it is one of {str([*PARTS, 'foreign'])[1:-1]}."),
        ("{kind: film, scale: 1}", "model.loop.parts.0.scale: no such key; known here: kind."),
        ("{kind: film}, {kind: film}", "model.loop: parts holds 2 of kind film, but a model has at most 1; leave one "
                                       "out."),
        ("{kind: foreign, name: tied}", "model.loop.parts.0.name: 'tied' was given, but no installed package declares "
                                        "it under the entry points 'mythos.loop_parts'; did you mean 'tide'?"),
        ("{kind: foreign, name: xyz}", "model.loop.parts.0.name: 'xyz' was given, but no installed package declares it "
                                       "under the entry points 'mythos.loop_parts'; known here: empty, storm, tide."),
        (f"{TIDE}, {TIDE}", "model.loop.parts holds 2 of 'tide', but a model has at most 1; leave one out."),
        ("{kind: film}, {kind: foreign, name: storm}",
         "model.loop.parts.1.name: storm_parts:SPEC of tide_parts 1.2 cannot be imported (RuntimeError: imported "
         "without being chosen); repair that package or choose another."),
        ("{kind: foreign, name: empty}", LACKS),
        ("{kind: foreign, name: tide, options: {decay: -1}}",
         "model.loop.parts.0.options.decay: input should be greater than or equal to 0, but -1 was given."),
        ("{kind: foreign, name: tide, options: {dekay: 1}}",
         "model.loop.parts.0.options.dekay: no such key; did you mean 'decay'?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["train", "costs"])
def test_a_mistake_is_one_sentence(
    command: str, parts: str, sentence: str, install: Callable[..., None], tide, capsys
) -> None:
    install("bad_parts", "0.3", BAD, loop_parts=["empty = bad_parts:Empty"])
    assert main([command, "model=debug", f"model.loop.parts=[{parts}]"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mythos: {sentence}")
    assert error.count("\n") == 1


def test_a_chosen_part_is_checked_without_torch_and_no_other_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from mythos.cli.main import main
from mythos.config.load import load
load(["model=debug", "model.loop.parts=[{TIDE}]"])
assert "tide_parts" in sys.modules
assert "storm_parts" not in sys.modules
assert main(["train", "model=debug", "model.loop.parts=[{{kind: foreign, name: tied}}]"]) == 2
assert "torch" not in sys.modules
"""
    path = os.pathsep.join([str(write_package(tmp_path / "site")), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": path}
    )


def test_costs_counts_the_parts(tide, capsys) -> None:
    def row(overrides: list[str]) -> list[int]:
        assert main(["costs", "model=debug", *overrides]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        (cells,) = (cells for cells in lines if cells[:1] == ["parts"])
        return [int(cells[1].replace(",", "")), int(cells[3].replace(",", ""))]

    injection = 2 * 32 + 32 * 32
    assert row([]) == [injection] * 2
    film = 2 * 16 * 32
    assert row([f"model.loop.parts=[{{kind: film}}, {TIDE}]"]) == [injection + film + 32 * 32] * 2


def test_plan_counts_the_parts(tide, capsys, tmp_path: Path) -> None:
    def num_parameters(overrides: list[str]) -> int:
        assert main(["plan", "model=debug", *overrides, "--json", str(tmp_path / "plan.json")]) == 0
        return json.loads((tmp_path / "plan.json").read_text())["num_parameters"]

    assert num_parameters([f"model.loop.parts=[{{kind: film}}, {TIDE}]"]) - num_parameters([]) == 2 * 16 * 32 + 32 * 32
