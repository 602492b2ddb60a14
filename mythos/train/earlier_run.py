"""What an earlier run has left in a directory, and whether a run may begin there. No torch."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from mythos.checkpoint import store
from mythos.checkpoint.saved import last_saved
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.os_errors import explained
from mythos.files import open_regular


def holds_run(path: Path) -> bool:
    """Whether metrics or a checkpoint were written; a start that failed before its first step has neither."""
    return _has_records(path) or bool(store.checkpoints(path / store.FOLDER)) or last_saved(path) is not None


def check_beginning(path: Path, copies: Sequence[str], reasons: Sequence[str]) -> None:
    """Check that a run without a usable checkpoint may begin from step 0, which drops the records that exist.

    It may if it ended before it had saved anything: then no work is lost that was not lost already.

    Args:
        copies: names of the copies in the mirror.
        reasons: why checkpoints cannot be used, of the newest first.

    Raises:
        ConfigError: the run has saved checkpoints.
    """
    folder = path / store.FOLDER
    own, saved = store.checkpoints(folder), last_saved(path)
    if own or copies:
        first = f" ({reasons[0].removesuffix(store.TRYING_EARLIER).rstrip(' .')})" if reasons else ""
        mistake = f"none of its checkpoints can be used{first}"
    elif saved is not None:
        mistake = f"its checkpoint {saved} is missing from {folder}"
    elif _has_records(path) and not folder.is_dir():
        mistake = f"{folder} is missing"
    else:
        return
    raise ConfigError(
        f"resume: {path} holds a run, but {mistake}; restore or mount {folder}, or choose another run.name to begin "
        "anew; nothing was changed."
    )


def _has_records(path: Path) -> bool:
    """Whether ``metrics.jsonl`` has more than its first line."""
    with explained(path / records.FILE_NAME):
        try:
            with open_regular(path / records.FILE_NAME, "rb") as file:
                return len(list(islice(file, 2))) > 1
        except (FileNotFoundError, NotADirectoryError):
            return False
