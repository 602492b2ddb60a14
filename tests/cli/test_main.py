import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import children_cpu_seconds

from mythos.cli.main import main

SMALL = """model=debug data.seq_len=32 data.batch_size=4 data.micro_batch_size=4 depth.mean=2 run.num_steps=6
run.validation.every=3 run.validation.num_batches=2 run.checkpoint.every=3 tracking.log_every=2
telemetry.trace_every=3 parallel.device=cpu schedule.num_warmup_steps=1""".split()


def mythos(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command as a user would, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "mythos.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def run(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, made by the command."""
    parent = tmp_path_factory.mktemp("runs")
    done = mythos("train", *SMALL, f"data.dir={packed}", f"run.dir={parent}", "run.name=short")
    assert done.returncode == 0, done.stderr
    assert "held-out loss at T=8:" in done.stdout
    assert re.search(r"^step 6/6  loss \d\.\d{3}, held-out \d\.\d{3} at T=8, ", done.stderr, flags=re.M)
    assert "held-out" not in next(line for line in done.stderr.splitlines() if line.startswith("step 2/6"))
    assert "tokens/s, mean depth " in done.stderr
    return parent / "short"


def test_help_names_every_command_in_under_a_second() -> None:
    """In seconds of the CPU, which do not grow with the load of the machine."""
    seconds = []
    for _ in range(3):
        start = children_cpu_seconds()
        done = mythos("--help")
        seconds.append(children_cpu_seconds() - start)
    assert done.returncode == 0
    commands = ("train", "config", "evaluate", "sample", "trace", "report", "doctor")
    assert all(f"    {command} " in done.stdout for command in commands)
    assert min(seconds) < 1


def test_evaluate_prints_bits_per_byte_by_loop_count_beside_compressors(run: Path, capsys) -> None:
    assert main(["evaluate", str(run), "--num-loops", "1", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    bits = {line[:11].strip(): float(line[11:].split()[0]) for line in lines[2:]}
    assert list(bits) == ["gzip -9", "xz -9", "T = 1", "T = 4"]
    assert all(0 < value < 8 for value in bits.values())
    assert lines[0].endswith("at step 6")
    assert lines[1].endswith("6,000 bytes of held-out text")


def test_sample_prints_a_continuation_for_each_loop_count(run: Path, capsys) -> None:
    command = ["sample", str(run), "--prompt", "the king", "--num-loops", "1", "3", "--num-tokens", "12"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert first.count("the king") >= 2
    assert "--- T = 1\n" in first
    assert "--- T = 3\n" in first
    assert main(command) == 0
    assert capsys.readouterr().out == first


def test_sample_continues_several_prompts_and_prints_the_loops_of_each_token(run: Path, capsys) -> None:
    command = ["sample", str(run), "--prompt", "the king", "of war and peace", "--num-loops", "6", "--num-tokens", "5"]
    rule = ["--exit-rule", "relative_change", "--exit-threshold", "1e9", "--cache-policy", "mean", "--top-p", "0.9"]
    assert main([*command, *rule]) == 0
    out = capsys.readouterr().out
    assert out.count("loops, 2.00 on average: ") == 2
    assert out.count(":2 ") + out.count(":2\n") == 10
    assert main([*command, "--exit-rule", "quantile"]) == 2
    assert "--exit-rule: quantile reads a halting gate" in capsys.readouterr().err
    assert main([*command[:-4], "--num-loops", "65"]) == 2
    assert "--num-loops: 65 was given; it must be at least 1, and at most 64" in capsys.readouterr().err


def test_figures_are_written_and_missing_ones_are_reported(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["figures", str(run), "--to", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "loss.svg"),
        "depth.svg is not written: no depth sweep (mythos evaluate RUN depth-sweep)",
        str(tmp_path / "norms.svg"),
        "exits.svg is not written: no depth sweep with exit rules (mythos evaluate RUN depth-sweep)",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.svg", "norms.svg"]


def test_resume_auto_resumes_and_reports_the_checkpoint(run: Path, packed: Path) -> None:
    options = [f"data.dir={packed}", f"run.dir={run.parent}", "run.name=short", "resume=auto"]
    done = mythos("train", *SMALL, *options, "run.num_steps=8")
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert "(step 6)" in done.stdout
    assert "step 8/8" in done.stderr
    again = mythos("train", *SMALL, *options, "run.num_steps=8")
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    assert again.stdout.splitlines() == [
        f"already at 8 of 8 steps: {run / 'checkpoints' / 'step-00000008'}; raise run.num_steps to continue.",
        f"run directory: {run}",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "model.dimm=3"], "model.dimm: no such key; did you mean 'dim'?"),
        (["train", "data.dir=nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere: no checkpoint that verifies"),
        (["evaluate", "nowhere", "--num-loops", "0"], "--num-loops: 0 was given"),
        (["sample", "nowhere", "--num-loops", "0"], "--num-loops: 0 was given"),
        (["sample", "nowhere", "--top-p", "1.5"], "--top-p: 1.5 was given"),
        (["sample", "nowhere", "--exit-rule", "entropy"], "--exit-rule: 'entropy' was given; it is one of quantile,"),
        (["sample", "nowhere", "--exit-threshold", "0.1"], "--exit-threshold: 0.1 was given without exit_rule"),
        (["sample", "nowhere", "--cache-policy", "first"], "--cache-policy: 'first' was given"),
        (["sample", "nowhere", "--temperature", "-1"], "--temperature: -1.0 was given"),
        (["report", "nowhere"], "nowhere"),
        (["figures", "nowhere", "--to", "out"], "nowhere: not a run, because it has no config.json"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_two(arguments: list[str], sentence: str, capsys) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("mythos: ")
    assert sentence in error
    assert error.count("\n") == 1


def test_a_prompt_longer_than_the_model_is_refused(run: Path, capsys) -> None:
    assert main(["sample", str(run), "--num-tokens", "300"]) == 2
    assert "together more than the model's 256" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *("export RUN --to=~/x", "sample ~/x", "report ~/x", "figures ~/x --to y", "costs --config-dir=~/x"),
        *(
            "plan --json=~/x",
            "trace RUN --prompt a --to=~/x",
            "evaluate RUN --data y ~/x",
            "evaluate RUN --data-dir=~/x",
        ),
    ],
)
def test_a_tilde_in_a_path_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.endswith(f": '~/x' was given, but ~ is not expanded here; write {Path.home() / 'x'}.\n")
    assert error.count("\n") == 1


def test_a_name_that_no_file_system_takes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "RUN", "--to", "x" * 256]) == 2
    assert capsys.readouterr().err.startswith("mythos: to: a name of 256 bytes was given (xxx")
