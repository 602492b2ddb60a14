"""``mythos costs``: its numbers, its errors, and its run time without torch."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import children_cpu_seconds

from mythos.account.flops import forward_flops, training_flops
from mythos.account.parameters import count_parameters
from mythos.cli import costs, costs_tables
from mythos.config.base import ConfigError
from mythos.config.load import default_config_dir, load


def run_costs(*words: str) -> int:
    parser = argparse.ArgumentParser()
    costs.add_parser(parser.add_subparsers())
    args = parser.parse_args(["costs", *words])
    return args.run(args)


def row(output: str, name: str) -> list[str]:
    """The cells after the name of the first row that has it."""
    line = next(line for line in output.splitlines() if line.startswith(name + " "))
    return line[len(name) :].split()


def test_report_of_a_run(capsys):
    assert run_costs("model=quickstart", "depth.mean=6") == 0
    output = capsys.readouterr().out
    config = load(["model=quickstart", "depth.mean=6"])
    forward = forward_flops(config.model, config.data.seq_len, 12)
    training = training_flops(config.model, config.data.seq_len, 6, 3)
    assert row(output, "embedding") == ["393,216", "13.4%", "393,216"]
    assert row(output, "forward T=12")[-1] == costs_tables.short(forward.total)
    assert row(output, "training T=6 k=3")[-1] == costs_tables.short(training.total)
    assert row(output, "weights") == ["11.8MB"]
    state_and_indices = 16 * 256 * (4 * 192 + 2 * 2 * 2)
    assert row(output, "remat loop")[1] == f"{costs_tables.short(state_and_indices)}B"


def test_columns_are_aligned(capsys):
    run_costs("model=debug")
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert len(tables) == 4
    assert all(len({len(line) for line in table.splitlines()}) == 1 for table in tables)


def test_sizes_holds_every_model_smallest_first(capsys):
    assert run_costs("--sizes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines[1:]) == sorted(
        path.stem for path in (default_config_dir() / "model").glob("*.yaml")
    )
    assert lines[-1].split()[:3] == ["1t", "981B", "34.8B"]


def test_documentation_shows_the_table_that_sizes_prints():
    page = Path(__file__).parents[2] / "docs" / "model-sizes.md"
    assert costs_tables.sizes_report(default_config_dir()) in page.read_text()


def test_sizes_refuses_overrides():
    with pytest.raises(ConfigError, match=r"^--sizes: model=debug was given beside it"):
        run_costs("model=debug", "--sizes")


def test_sizes_refuses_a_folder_without_models(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no model/\*\.yaml"):
        run_costs("--sizes", "--config-dir", str(tmp_path))


def test_sizes_names_the_file_of_a_broken_model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bad.yaml").write_text("vocab_sise: 3\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml: .*vocab_sise: no such key; did you mean 'vocab_size'"):
        run_costs("--sizes", "--config-dir", str(tmp_path))


def test_a_thousand_billion_parameters_take_no_memory_and_no_torch():
    code = (
        "import argparse, sys\n"
        "from mythos.cli import costs\n"
        "args = argparse.Namespace(overrides=['model=1t'], config_dir=None, sizes=False)\n"
        "assert costs.run(args) == 0\n"
        "assert 'torch' not in sys.modules\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "assert int(status['VmHWM'].split()[0]) < 300_000, 'over 300 MB'\n"
    )
    start = children_cpu_seconds()
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = children_cpu_seconds() - start
    assert finished.returncode == 0, finished.stderr
    assert row(finished.stdout, "total")[0] == f"{count_parameters(load(['model=1t']).model).total:,}"
    assert seconds < 5  # 0.4 on an idle core


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0.00"),
        (7, "7.00"),
        (999, "999"),
        (999.6, "1.00k"),
        (405_900_000, "406M"),
        (2.9e9, "2.90G"),
        (3e16, "30.0P"),
    ],
)
def test_short_numbers_keep_three_digits(number, expected):
    assert costs_tables.short(number) == expected


def test_model_sizes_are_written_with_b_for_billion():
    assert costs_tables.short_count(2_931_000_000) == "2.93B"
