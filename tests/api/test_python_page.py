import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_examples_of_the_page_run_one_after_the_other(packed: Path, tmp_path: Path) -> None:
    """In a process of its own, from a folder that holds the dataset under the name that the page uses."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small").symlink_to(packed)
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("runs/first {1: ")
    assert lines[1] == "4"
    num_tokens = int(re.fullmatch(r"torch.Size\(\[1, (\d+), 512\]\)", lines[2]).group(1))
    assert lines[3] == f"torch.Size([3, 1, {num_tokens}, 512])"


def test_every_public_function_is_on_the_page() -> None:
    text = PAGE.read_text()
    for name in ("load_config", "build_model", "train", "load", "generate", "trace", "evaluate"):
        assert re.search(rf"^\| `{name}\(", text, flags=re.MULTILINE), name
