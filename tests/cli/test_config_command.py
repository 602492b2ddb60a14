import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mythos.cli.main import main
from mythos.config.base import decode, encode, flatten
from mythos.config.groups import default_config_dir, groups_of
from mythos.config.keys import keys_of
from mythos.config.load import load
from mythos.config.run import RunConfig

GROUPS = """model model/loop depth halting objective data optim balance schedule parallel telemetry tracking cluster
experiment""".split()
OPTIONS = [f"{group.name}={option}" for group in groups_of(default_config_dir()) for option in group.options]
INCOMPLETE = {
    "tracking=foreign": ["tracking.name=x"],
    "optim=foreign": ["optim.name=x"],
    **{f"parallel=zero{stage}": ["optim=adamw"] for stage in (1, 2, 3)},
    "halting=act": ["depth.num_grad_loops=32"],
    "halting=ponder": ["depth.num_grad_loops=32"],
    "halting=gate": ["depth.num_grad_loops=32"],
}
"""Options that need another key."""


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["config", *words]) == 0
    return capsys.readouterr().out


def test_the_composed_configuration_is_yaml_that_reads_back(capsys) -> None:
    overrides = ["experiment=quickstart", "depth.mean=4", "model/loop=keep_gate", "run.name='größe # 1'"]
    text = printed(capsys, *overrides)
    assert decode(RunConfig, yaml.safe_load(text)) == load(overrides)
    lines = text.splitlines()
    assert lines[lines.index("depth:") + 1] == "  kind: poisson"
    assert "    num_loops: [1, 2, 4, 8, 16]" in lines
    assert "  num_steps: 300" in lines


def test_parts_are_printed_alone_and_may_stand_before_or_after_options(capsys) -> None:
    assert printed(capsys, "depth.mean=4", "run.seed", "schedule.kind") == (
        "schedule:\n  kind: trapezoid\nrun:\n  seed: 0\n"
    )
    config_dir = ["--config-dir", str(default_config_dir())]
    assert printed(capsys, "run.seed=3", *config_dir, "run.seed") == "run:\n  seed: 3\n"


def test_changes_are_those_against_the_defaults(capsys) -> None:
    assert printed(capsys, "depth=fixed", "depth.num_loops=3", "run.seed=1", "--changes").splitlines() == [
        "depth.growth: [] -> (absent)",
        "depth.kind: poisson -> fixed",
        "depth.max_loops: 32 -> (absent)",
        "depth.mean: 8.0 -> (absent)",
        "depth.num_loops: (absent) -> 3",
        "depth.per_sequence: false -> (absent)",
        "depth.ramp: null -> (absent)",
        "run.seed: 0 -> 1",
    ]
    assert printed(capsys, "--changes", "depth=fixed", "depth.num_loops=3", "run.seed=1", "run") == "run.seed: 0 -> 1\n"
    assert printed(capsys, "--changes") == (
        f"Nothing differs from the defaults of {default_config_dir() / 'train.yaml'}.\n"
    )


def test_groups_are_printed_with_their_options(capsys, tmp_path: Path) -> None:
    lines = printed(capsys, "--groups").splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert [line.partition(":")[0] for line in headings] == GROUPS
    assert all(len(line.partition(": ")[2]) > 10 for line in headings)
    assert lines[lines.index("depth: how many loops a step runs") + 1] == (
        "    choice, fixed, lognormal_poisson, poisson (default), uniform"
    )
    own = Path(shutil.copytree(default_config_dir(), tmp_path / "conf"))
    shutil.copy(own / "depth" / "fixed.yaml", own / "depth" / "mine.yaml")
    assert "    choice, fixed, lognormal_poisson, mine, poisson (default), uniform" in printed(
        capsys, "--groups", "--config-dir", str(own)
    )


def test_keys_are_printed_with_value_meaning_and_choices(capsys) -> None:
    lines = printed(capsys, "--keys", "depth", "depth.mean=3", "run.checkpoint.keep_every", "tracking.profile")
    assert lines.splitlines()[:3] == [
        "depth.kind = poisson",
        "    T drawn from a Poisson distribution and clamped to [1, max_loops] (Parcae, arXiv 2604.12946).",
        "    One of fixed, poisson, lognormal_poisson, uniform, choice.",
    ]
    assert "depth.mean = 3.0\n    Mean of the Poisson distribution before clamping.\n" in lines
    assert "depth.per_sequence = false\n" in lines
    assert "    One of true, false.\n" in lines
    assert "tracking.profile.start = (required)\n" in lines
    assert "run.checkpoint.keep_every = null\n    Keep every checkpoint whose step is a multiple of this" in lines
    assert "``" not in lines
    assert "run.seed" not in lines


@pytest.mark.parametrize("option", [option for option in OPTIONS if not option.startswith(("model=", "experiment="))])
def test_every_key_of_every_kind_has_a_meaning(option: str) -> None:
    config = load([option, *INCOMPLETE.get(option, [])], check=lambda config: None)
    keys = list(keys_of(config))
    assert [key.path for key in keys if not key.meaning] == []
    paths = {key.path for key in keys}
    assert len(paths) == len(keys) > 130
    assert flatten(encode(config)).keys() <= paths


def test_train_help_names_the_groups_and_their_options(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    rows = text[text.index("groups, each GROUP=OPTION") :].splitlines()
    assert [row.split()[0] for row in rows[1:] if row.startswith("  ") and row[2] != " "][: len(GROUPS)] == GROUPS
    assert "  depth       poisson, choice, fixed, lognormal_poisson, uniform" in rows
    words = set(text.replace(",", " ").split())
    assert {option.partition("=")[2] for option in OPTIONS} <= words


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["depht"], "depht: no such key; did you mean 'depth'?"),
        (["depth.kin", "--keys"], "depth.kin: no such key; did you mean 'depth.kind'?"),
        (["model.dimm=3"], "model.dimm: no such key; did you mean 'dim'?"),
        (["--config-dir", "nowhere"], "--config-dir: nowhere holds no train.yaml; point it at a folder like conf/."),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, capsys) -> None:
    assert main(["config", *words]) == 2
    assert capsys.readouterr().err == f"mythos: {sentence}\n"


def test_a_reader_that_stops_is_no_error() -> None:
    command = f"{sys.executable} -m mythos.cli.main config --keys | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=os.environ)
    assert (done.stdout, done.stderr) == ("model\n", "")
