"""Provenance of a run: the state of the code, the versions, the machine.

Environment variables, addresses of git remotes and files that git does not track are never read, and lines of the
difference that look like a credential are withheld.
"""

import json
import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

import mythos
from mythos.files import read_regular, write_text
from mythos.train.code_state import code_state

_PACKAGES: Final = ("torch", "lightning", "deepspeed", "triton", "numpy", "pydantic")


def write_provenance(directory: Path, first_step: int) -> dict[str, Any]:
    """Write ``provenance/step-<first_step>.json``, and ``.diff`` if the code differs from its commit.

    Returns:
        ``code`` and ``environment`` as written, for the trackers.
    """
    commit, status, difference = code_state(Path(mythos.__file__).parents[1])
    code = {"version": mythos.__version__, "commit": commit, "is_dirty": bool(status) if commit else None}
    facts = {"code": code, "environment": environment()}
    stem = directory / "provenance" / f"step-{first_step:08d}"
    write_text(stem.with_suffix(".json"), json.dumps({**facts, "changed_files": status}, indent=1))
    if difference:
        write_text(stem.with_suffix(".diff"), difference)
    return facts


def threads_before(directory: Path) -> int | None:
    """Return the threads of a run's last start, if it was on this machine; None if not, or if it is not recorded."""
    written = sorted((directory / "provenance").glob("step-*.json"))
    try:
        facts = json.loads(read_regular(written[-1]))["environment"]
        is_here = (facts["host"], facts["num_cpus"]) == (platform.node(), os.cpu_count())
        return int(facts["num_threads"]) if is_here else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def environment() -> dict[str, Any]:
    """Return versions, host, devices and the number of processes."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in _PACKAGES if find_spec(name)},
        "cuda": torch.version.cuda,
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "world_size": int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1),
    }
