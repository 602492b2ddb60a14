import subprocess
import sys

import pytest


def loaded_after(code: str) -> set[str]:
    """Top-level modules in memory after running code in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import mythos",
        "import mythos.cli.main",
        "from mythos.config.load import load; load([])",
        "import mythos.train.run_directory",
        "import mythos.sweep.run",
        "import data_pipelines.cli",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    assert not loaded_after(code) & {"torch", "lightning", "wandb", "plotly", "tokenizers"}
