"""The state of the code: its commit, and the difference from it. No torch."""

import json
import subprocess
from pathlib import Path
from typing import Final

from mythos.config.secrets import CREDENTIAL

FROZEN: Final = "code.json"
"""Beside a frozen copy of the package: ``commit``, ``changed_files`` and ``difference`` of what was copied."""
_CODE: Final = ("*.py", "*.pyi", "*.yaml", "*.toml", "*.txt", "*.sh", "*.md", "*Makefile", "*Dockerfile")
"""Files whose changes are recorded; those of a ``.env`` or a key file are not."""
_MAX_CHARACTERS: Final = 1_000_000


def code_state(root: Path) -> tuple[str | None, list[str], str]:
    """Return commit, changed or untracked files, and difference of tracked files; ``(None, [], "")`` outside git.

    ``root`` must itself be tracked, because an environment may be inside the checkout of another project. A copy that a
    submission froze has recorded the state of its source.
    """
    if (root / FROZEN).is_file():
        frozen = json.loads((root / FROZEN).read_text(encoding="utf-8"))
        return frozen["commit"], frozen["changed_files"], frozen["difference"]
    if not _git(root, "ls-files", "mythos/__init__.py"):
        return None, [], ""
    commit = _git(root, "rev-parse", "HEAD").strip()
    if not commit:
        return None, [], ""
    status = _git(root, "status", "--porcelain").splitlines()
    difference = _git(root, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--", *_CODE)
    return commit, status, withheld(difference)


def withheld(difference: str) -> str:
    """Remove lines that look like a credential from a difference, and truncate it to a million characters."""
    kept = [
        f"{line[:1]}[withheld: looks like a credential]" if line[:1] in "+- " and CREDENTIAL.search(line) else line
        for line in difference.splitlines()
    ]
    text = "".join(f"{line}\n" for line in kept)
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "\n[cut]\n"


def _git(root: Path, *arguments: str) -> str:
    """Return the output of git; nothing without git or a checkout, or after a timeout."""
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
