"""The recorded state of the code: correct in a checkout, empty outside, and without secrets."""

import json
import subprocess
from pathlib import Path

import pytest

from mythos.train import provenance
from mythos.train.code_state import code_state, withheld
from mythos.train.provenance import threads_before, write_provenance


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one commit."""
    root = tmp_path / "checkout"
    (root / "mythos").mkdir(parents=True)
    (root / "mythos" / "__init__.py").write_text("x = 1\n")
    (root / ".env").write_text("WANDB_API_KEY=1\n")
    for command in (["init", "-q"], ["add", "-f", "."], ["commit", "-q", "-m", "a", "--no-gpg-sign"]):
        git(root, "-c", "user.name=a", "-c", "user.email=a@b", *command)
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout


def test_a_clean_checkout_has_a_commit_and_no_difference(checkout: Path) -> None:
    assert code_state(checkout) == (git(checkout, "rev-parse", "HEAD").strip(), [], "")


def test_the_difference_of_a_checkout_is_recorded_without_secrets(checkout: Path, monkeypatch, tmp_path: Path) -> None:
    (checkout / "mythos" / "__init__.py").write_text("x = 2\napi_key = 'abc'\n")
    (checkout / ".env").write_text("WANDB_API_KEY=2\n")
    (checkout / "new.py").write_text("")
    monkeypatch.setattr(provenance.mythos, "__file__", str(checkout / "mythos" / "__init__.py"))
    facts = write_provenance(tmp_path / "run", 40)
    written = json.loads((tmp_path / "run" / "provenance" / "step-00000040.json").read_text())
    assert facts["code"] == written["code"]
    assert written["code"]["is_dirty"] is True
    assert written["changed_files"] == [" M .env", " M mythos/__init__.py", "?? new.py"]
    difference = (tmp_path / "run" / "provenance" / "step-00000040.diff").read_text()
    assert "-x = 1\n+x = 2\n+[withheld: looks like a credential]\n" in difference
    assert "abc" not in difference
    assert "WANDB" not in difference


def test_nothing_is_recorded_outside_git_or_in_the_checkout_of_another_project(checkout: Path, tmp_path: Path) -> None:
    assert code_state(tmp_path) == (None, [], "")
    installed = checkout / "venv" / "site-packages"
    (installed / "mythos").mkdir(parents=True)
    (installed / "mythos" / "__init__.py").write_text("")
    assert code_state(installed) == (None, [], "")


def test_nothing_is_recorded_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert code_state(checkout) == (None, [], "")


@pytest.mark.parametrize(
    "line",
    [
        '+    "password": "x"',
        "-url = https://me:pw@example.org/repo",
        "+TOKEN hf_abcdefghijkl",
        "+AKIAABCDEFGHIJKLMNOP",
        "+ key 0123456789abcdef0123456789abcdef01234567",
        "+-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_a_line_like_a_credential_is_withheld(line: str) -> None:
    assert withheld(line) == f"{line[0]}[withheld: looks like a credential]\n"


def test_ordinary_code_is_kept() -> None:
    lines = "+tokens_BS = batch.tokens_BS\n-num_tokens: int = 4\n+tokenizer = load(path)  # key of a dict\n"
    assert withheld(lines) == lines


def test_a_run_that_resumes_on_its_machine_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads_before(tmp_path) is None
    write_provenance(tmp_path, 0)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    write_provenance(tmp_path, 4)
    assert threads_before(tmp_path) == 3
    path = tmp_path / "provenance" / "step-00000004.json"
    facts = json.loads(path.read_text())
    assert facts["environment"]["num_threads"] == 3
    path.write_text(json.dumps({**facts, "environment": {**facts["environment"], "host": "another"}}))
    assert threads_before(tmp_path) is None
    path.write_text(json.dumps({"environment": {"host": "as written before threads were recorded"}}))
    assert threads_before(tmp_path) is None
