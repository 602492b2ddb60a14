import subprocess
import sys

import pytest

COMMANDS = "train sweep evaluate sample trace report figures consolidate export doctor costs plan bench".split()


def loaded_after(code: str) -> set[str]:
    """Top-level modules in memory after running code in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import mythos",
        "from mythos.config.load import load; load([])",
        "import mythos.train.run_directory",
        "import mythos.sweep.run",
        "import data_pipelines.cli",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    assert not loaded_after(code) & {"torch", "lightning", "wandb", "plotly", "tokenizers"}


HEAVY = {"matplotlib"} | set(
    "torch lightning deepspeed transformers scipy wandb plotly tokenizers fsspec numpy hydra pydantic".split()
)
"""Modules that take 20 ms or more to import."""
CONFIGURATION = {"hydra", "pydantic"}


def run_main(module: str, *words: str) -> str:
    """Code that runs a command to its end; ``--help`` ends by an exception, with status 0."""
    return (
        f"import {module} as command\ntry: command.main({list(words)})\nexcept SystemExit as end: assert not end.code"
    )


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS)], ids=lambda words: " ".join(words) or "mythos")
def test_help_of_mythos_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert not loaded_after(run_main("mythos.cli.main", *words, "--help")) & HEAVY


@pytest.mark.parametrize("words", [(), ("tasks",), ("clean",)], ids=lambda words: " ".join(words) or "mythos-data")
def test_help_of_mythos_data_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert not loaded_after(run_main("data_pipelines.cli", *words, "--help")) & HEAVY


@pytest.mark.parametrize(
    ("module", "words", "needed"),
    [
        ("mythos.cli.main", "train model.dimm=3", CONFIGURATION),
        ("mythos.cli.main", "train experiment=quikstart", CONFIGURATION),
        ("mythos.cli.main", "plan model=debug", CONFIGURATION),
        ("mythos.cli.main", "costs --sizes", CONFIGURATION),
        ("mythos.cli.main", "costs model=debug", {*CONFIGURATION, "numpy"}),
        ("mythos.cli.main", "sweep --table missing", CONFIGURATION | {"numpy"}),
        ("launch.submit", "model.dimm=3", CONFIGURATION),
    ],
)
def test_what_needs_no_model_imports_the_configuration_alone(module: str, words: str, needed: set[str]) -> None:
    assert loaded_after(run_main(module, *words.split())) & HEAVY == needed
