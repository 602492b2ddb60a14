"""The file ``<run>/saved``, which names the last checkpoint that a run has saved.

It is beside the folder of checkpoints, which may be a link to a disk that is not mounted. If it names a checkpoint and
none is found, checkpoints were lost: the run is not a new one.
"""

from pathlib import Path
from typing import Final

from mythos.config.os_errors import explained
from mythos.files import read_regular, write_text

SAVED_FILE: Final = "saved"
_MAX_CHARACTERS: Final = 40


def record_saved(run: Path, checkpoint: str) -> None:
    """Record that the checkpoint of this name was saved.

    Raises:
        ConfigError: the file cannot be written.
    """
    with explained(run / SAVED_FILE):
        write_text(run / SAVED_FILE, f"{checkpoint}\n")


def last_saved(run: Path) -> str | None:
    """Name of the last checkpoint that was saved, printable whatever the file contains; None without one.

    Raises:
        ConfigError: the file cannot be read.
    """
    with explained(run / SAVED_FILE):
        try:
            text = read_regular(run / SAVED_FILE).decode("utf-8", "replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return ascii(text[:_MAX_CHARACTERS]).strip("'\"")
