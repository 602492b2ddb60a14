"""The checkpoints of a run: ``checkpoints/step-*``, complete or absent."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from mythos.checkpoint.manifest import Manifest, digests, verify
from mythos.config.base import ConfigError
from mythos.files import remove, replacing

FOLDER: Final = "checkpoints"
"""Where a run keeps them."""
STATE_FILE: Final = "state.ckpt"
"""Model, optimiser, schedule, callbacks and data position."""


def save(directory: Path, manifest: Manifest, write: Callable[[Path], None], keep_last: int) -> Path:
    """Write a checkpoint under a temporary name, rename it, then drop all but the last ``keep_last`` up to it.

    Args:
        directory: the run's ``checkpoints`` folder.
        manifest: complete but for ``files``.
        write: fills an empty directory with the state.
    """
    path = directory / f"step-{manifest.step:08d}"
    for scrap in [path, *directory.glob(".step-*")]:  # of this step's earlier life, or of a save that was killed
        remove(scrap)
    with replacing(path) as temporary:
        temporary.mkdir()
        write(temporary)
        replace(manifest, files=digests(temporary)).write(temporary)
    up_to_here = [one for one in checkpoints(directory) if one <= path]
    for old in up_to_here[:-keep_last]:
        remove(old)
    return path


def checkpoints(directory: Path) -> list[Path]:
    """All checkpoints, oldest first; unfinished ones have other names."""
    return sorted(directory.glob("step-*"))


def warn_on_stderr(text: str) -> None:
    """What a person at the terminal should know."""
    print(f"warning: {text}", file=sys.stderr)


def newest(directory: Path, warn: Callable[[str], None] = warn_on_stderr) -> tuple[Path, Manifest] | None:
    """The newest checkpoint whose files all match its manifest; damaged ones are passed over aloud."""
    for path in reversed(checkpoints(directory)):
        try:
            return path, verify(path)
        except ConfigError as error:
            warn(f"{error} Trying the checkpoint before it.")
    return None
