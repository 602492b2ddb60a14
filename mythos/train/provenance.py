"""What a run was made with: the state of the code, the versions, the machine.

Environment variables, addresses of git remotes and files that git does not track are never read, and lines of the
difference that look like a credential are withheld.
"""

import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

import mythos
from mythos.files import write_text

_CODE: Final = ("*.py", "*.pyi", "*.yaml", "*.toml", "*.txt", "*.sh", "*.md", "*Makefile", "*Dockerfile")
"""Files whose changes are kept; a changed ``.env`` or key file is not."""
_SECRET: Final = re.compile(
    r"(api.?key|access.?key|secret|passw(or)?d|auth.?token|credential|bearer)['\"]?\s*[:=]|://[^/\s:@]+:[^/\s@]+@"
    r"|\b(sk-|hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA|AIza|wandb_v1_)\w{8,}|PRIVATE KEY|\b[0-9a-f]{40}\b",
    re.IGNORECASE,
)
_MAX_CHARACTERS: Final = 1_000_000
_PACKAGES: Final = ("torch", "lightning", "deepspeed", "triton", "numpy", "pydantic")


def write_provenance(directory: Path, first_step: int) -> dict[str, Any]:
    """Write ``provenance/step-<first_step>.json``, and ``.diff`` where the code differs from its commit.

    Returns:
        ``code`` and ``environment`` as they were written, for the trackers.
    """
    commit, status, difference = code_state(Path(mythos.__file__).parents[1])
    code = {"version": mythos.__version__, "commit": commit, "is_dirty": bool(status) if commit else None}
    facts = {"code": code, "environment": environment()}
    stem = directory / "provenance" / f"step-{first_step:08d}"
    write_text(stem.with_suffix(".json"), json.dumps({**facts, "changed_files": status}, indent=1))
    if difference:
        write_text(stem.with_suffix(".diff"), difference)
    return facts


def code_state(root: Path) -> tuple[str | None, list[str], str]:
    """Commit, changed or untracked files, and difference of tracked files; ``(None, [], "")`` outside git.

    ``root`` must itself be tracked: an environment may lie inside the checkout of something else.
    """
    if not _git(root, "ls-files", "mythos/__init__.py"):
        return None, [], ""
    commit = _git(root, "rev-parse", "HEAD").strip()
    if not commit:
        return None, [], ""
    status = _git(root, "status", "--porcelain").splitlines()
    difference = _git(root, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--", *_CODE)
    return commit, status, withheld(difference)


def withheld(difference: str) -> str:
    """The difference without lines that look like a credential, and not longer than a million characters."""
    kept = [
        f"{line[:1]}[withheld: looks like a credential]" if line[:1] in "+- " and _SECRET.search(line) else line
        for line in difference.splitlines()
    ]
    text = "".join(f"{line}\n" for line in kept)
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "\n[cut]\n"


def environment() -> dict[str, Any]:
    """Versions, host, devices, number of processes."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "num_cpus": os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES if find_spec(name)},
        "cuda": torch.version.cuda,
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "world_size": int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1),
    }


def _git(root: Path, *arguments: str) -> str:
    """What git prints; nothing where there is no git, no checkout, or no answer."""
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
