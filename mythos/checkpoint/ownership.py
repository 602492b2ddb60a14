"""Which run a checkpoint belongs to. Two runs of one name must not share a mirror: each would take the other's weights.

A run draws an id when it starts, keeps it in ``<run>/run-id`` and writes it into its checkpoints. A run of an earlier
version has none, and draws one when it resumes; what has no id could be anybody's, and is nobody's in particular.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mythos.checkpoint.manifest import Manifest
from mythos.config.base import ConfigError
from mythos.files import read_regular, write_text

FILE_NAME: Final = "run-id"


def new_id() -> str:
    """Return an id that no other run has."""
    return uuid.uuid4().hex


def write_id(run: Path, run_id: str) -> None:
    """Keep the id in the run's directory."""
    if read_id(run) != run_id:
        write_text(run / FILE_NAME, run_id)


def read_id(run: Path) -> str | None:
    """Return the id in a run's directory; None if it has none."""
    try:
        return read_regular(run / FILE_NAME).decode().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def own_id(run: Path, manifest: Manifest | None) -> str | None:
    """Return the id of the run in a directory, which may have been moved; None if it has none, or is a copy of a run.

    Args:
        manifest: that of the directory's own newest checkpoint.
    """
    run_id = read_id(run) if manifest is None or manifest.run_id is None else manifest.run_id
    if manifest is None or manifest.run_dir is None or run_id is None:
        return run_id
    earlier = Path(manifest.run_dir)
    is_copied = earlier != run.resolve() and earlier.is_dir() and read_id(earlier) == run_id
    return None if is_copied and not earlier.samefile(run) else run_id


def check_owner(url: str, copies: Mapping[str, Manifest], run_id: str | None) -> None:
    """Check that no copy in a mirror belongs to another run.

    Args:
        copies: manifests of the complete copies by name, oldest first.
        run_id: id of the run that uses the mirror; None lets it have copies without an id only.

    Raises:
        ConfigError: one does.
    """
    for name, copy in reversed(list(copies.items())):
        if copy.run_id not in (None, run_id):
            raise ConfigError(
                f"run.checkpoint.copy_to: {url}/{name} belongs to another run of this name, which was trained in "
                f"{copy.run_dir}; choose another run.name or run.checkpoint.copy_to. To continue that run here, first "
                "download this copy into the checkpoints folder of an empty run directory."
            )


def lost_id(run: Path, copies: Mapping[str, Manifest]) -> str | None:
    """Return the id of a run whose own directory was lost, by its newest copy; None if that is of another directory."""
    newest = list(copies.values())[-1] if copies else None
    return newest.run_id if newest is not None and newest.run_dir == str(run.resolve()) else None
