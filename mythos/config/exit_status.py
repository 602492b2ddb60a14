"""What the exit status of ``mythos train`` says to whoever started it. Schedulers decide by these numbers."""

from typing import Final

LOST_PEER: Final = 75
"""A rank lost contact with another: start again with ``resume=auto``."""
DIVERGED: Final = 76
"""Skipping steps and going back could not save the run: starting it again would not help."""
PREEMPTED: Final = 77
"""A signal or the time limit ended the run, which has been saved: start again with ``resume=auto``."""
STALLED: Final = 78
"""Nothing moved for ``run.stall_seconds``: start again with ``resume=auto``."""

START_AGAIN: Final = frozenset({LOST_PEER, PREEMPTED, STALLED})
"""After these, and no others, a scheduler starts the same command with ``resume=auto``."""
MEANING: Final = {
    LOST_PEER: "a rank lost contact with another",
    DIVERGED: "the run diverges",
    PREEMPTED: "asked to end, and saved",
    STALLED: "nothing moved",
}
"""For people."""
