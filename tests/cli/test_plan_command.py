"""``mythos plan``: its numbers, its exit status, and its run time without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mythos.account.plan import plan
from mythos.cli.main import main
from mythos.config.load import load
from mythos.config.recipes import RECIPES

RUN = [
    *("model=560m-a210m", "optim=adamw", "parallel=zero1", "cluster.num_devices=2", "parallel.precision=bf16"),
    *("data.seq_len=2048", "data.micro_batch_size=8", "data.batch_size=32"),
]
TIGHT = [*RUN, "parallel.memory_gb=24"]


def cells(output: str, name: str) -> list[str]:
    """The cells after the name of the first row that has it."""
    line = next(line for line in output.splitlines() if line.startswith(name))
    return line[len(name) :].split()


def test_a_run_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *RUN, "--device", "H200", "--tokens", "1e12"]) == 0
    output, estimate = capsys.readouterr().out, plan(load(RUN), "H200")
    assert output.splitlines()[0] == "0.562B parameters on 1 x 2 H200: ZeRO 1, ep 1, remat none"
    assert output.splitlines()[1].startswith(f"fits: {estimate.memory.total / 2**30:.1f} of 139.0 GiB")
    assert cells(output, "weights  ") == [f"{estimate.memory.weights / 2**30:.2f}"]
    assert cells(output, "gradients, dense")[:2] == ["all-reduce", "2"]
    assert cells(output, "tokens/s") == [f"{estimate.tokens_per_second:,.0f}"]
    assert cells(output, "days for 1e+12 tokens") == [f"{estimate.days(1e12):,.3g}"]
    assert cells(output, "H200-hours of all devices") == [f"{48 * estimate.days(1e12):,.1f}"]
    assert "cost" not in output


def test_time_and_cost_of_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, words = tmp_path / "plan.json", ["experiment=1b-20b-tokens", "--price-per-hour", "2.5"]
    assert main(["plan", *words, "--json", str(path)]) == 0
    captured, estimate = capsys.readouterr(), plan(load(words[:1]), "H100")
    num_tokens = 38_100 * 256 * 2048
    hours = 8 * num_tokens / estimate.tokens_per_second / 3600
    assert cells(captured.out, "days for 2e+10 tokens") == [f"{hours / 24 / 8:,.3g}"]
    assert cells(captured.out, "H100-hours of all devices") == [f"{hours:,.1f}"]
    assert cells(captured.out, "cost, at 2.5 for an hour of one device") == [f"{2.5 * hours:,.2f}"]
    content = json.loads(path.read_text())
    assert (content["tokens"], content["cost"]) == (num_tokens, pytest.approx(2.5 * hours, rel=1e-9))
    assert content["device_hours"] == pytest.approx(hours, rel=1e-9)
    assert captured.err == ""


def test_recipes_has_one_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--recipes", "--device", "H200"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[-1] == "H200-hours"
    assert [line.split()[0] for line in lines] == [recipe.name for recipe in RECIPES]


def test_toy_settings_of_a_large_model_are_one_line_that_names_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "model=370m"]) == 0
    assert capsys.readouterr().err == (
        "warning: a model of 365M parameters trains with windows of 256 tokens (data.seq_len), 4,096 tokens a step "
        "(data.batch_size), fp32 on a GPU (parallel.precision); experiment=370m-7b-tokens has settings for such a "
        "model.\n"
    )


def test_a_device_too_small_is_named_the_recipe_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "experiment=1b-20b-tokens", "--device", "L4"]) == 1
    assert "does not fit: 29.6 of 22.0 GiB" in (output := capsys.readouterr().out)
    assert output.rstrip().endswith("would fit with: data.micro_batch_size=1")
    assert main(["plan", "model=3b", "parallel.memory_gb=24", "--device", "L4"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("or a recipe that fits: experiment=370m-7b-tokens")


def test_a_run_that_does_not_fit_gets_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *TIGHT]) == 1
    output = capsys.readouterr().out
    assert "does not fit" in output
    changes = cells(output, "would fit with:")
    assert main(["plan", *TIGHT, *changes]) == 0


def test_a_run_for_which_no_layout_fits_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    muon = ["model=30b", "parallel=ddp", "cluster.num_devices=2", "data.batch_size=2", "data.micro_batch_size=1"]
    assert main(["plan", *muon]) == 1
    assert "no layout on these devices fits" in (output := capsys.readouterr().out)
    assert "optim=adamw lets ZeRO shard them" in output


def test_search_lists_layouts_and_json_holds_all_of_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert main(["plan", *TIGHT, "--search", "--top", "3", "--json", str(path)]) == 0
    table = capsys.readouterr().out.partition("layouts fit\n")[2].splitlines()
    assert len(table) == 1 + 3
    content = json.loads(path.read_text())
    assert content["fits"] is False
    assert len(content["layouts"]) > 3
    best = content["layouts"][0]
    again = plan(load([*TIGHT, *best["overrides"]]), "H100")
    assert (again.memory.total, again.fits) == (best["memory"]["total"], True)
    assert again.tokens_per_second == best["tokens_per_second"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "abacus"], "device: 'abacus' is not in the table of devices; give one of"),
        (["--tokens", "-1"], "--tokens: -1 was given; give a positive number."),
        (["--price-per-hour", "0"], "--price-per-hour: 0 was given; give a positive number."),
        (["--recipes", "model=1b"], "--recipes: model=1b was given beside it, but it prints each recipe as it is"),
        (["--efficiency", "1.5"], "--efficiency: 1.5 was given; it is a share of the peak"),
    ],
)
def test_mistakes(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_trillion_parameters_on_4096_devices_without_torch() -> None:
    words = ["model=1t", "optim=adamw", "parallel=zero3", "parallel.ep_size=64", "parallel.remat=auto"]
    words += ["cluster.num_nodes=512", "cluster.num_devices=8", "data.batch_size=4096", "data.micro_batch_size=1"]
    words += ["data.seq_len=8192", "run.validation.num_batches=4096", "parallel.precision=bf16", "--search"]
    code = f"""
import sys
from mythos.cli.main import main
status = main({["plan", *words, "--device", "B200"]!r})
print(status, sorted({{"torch", "lightning", "deepspeed"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("981B parameters on 512 x 8 B200")
    assert done.stdout.splitlines()[-1] == "0 []"
