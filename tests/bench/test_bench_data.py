import json
import subprocess
import sys
from pathlib import Path

import pytest

from mythos.bench.data import check
from mythos.cli.main import main
from mythos.config.base import ConfigError


def test_the_loader_is_read_with_each_number_of_workers(packed: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    size = [f"data.dir={packed}", "data.seq_len=32", "data.batch_size=4", "data.micro_batch_size=2"]
    words = [*size, "--workers", "0", "1", "--batches", "3", "--rounds", "2", "--json", str(file)]
    assert main(["bench", "data", *words]) == 0
    rates = json.loads(file.read_text())["rates"]
    assert [rate["num_workers"] for rate in rates] == [0, 1]
    for rate in rates:
        assert 0 < rate["low"] <= rate["tokens_per_second"] <= rate["high"]


def test_a_round_without_batches_and_a_missing_data_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--batches 0"):
        check([0], 0, 1)
    assert main(["bench", "data", f"data.dir={tmp_path}"]) == 2


@pytest.mark.parametrize("words", [["bench", "--help"], ["bench", "model", "--help"], ["bench", "data", "--help"]])
def test_help_does_not_import_torch(words: list[str]) -> None:
    code = (
        f"import sys; from mythos.cli.main import main\ntry: main({words})\nfinally: assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
