"""Exit statuses of ``mythos train``, by which schedulers and launchers decide what to do."""

from typing import ClassVar, Final

LOST_PEER: Final = 75
"""A rank lost contact with another one: restart with ``resume=auto``."""
DIVERGED: Final = 76
"""The run diverges in spite of skipped steps and rollbacks: a restart would not help."""
PREEMPTED: Final = 77
"""A signal or the time limit stopped the run after a save: restart with ``resume=auto``."""
STALLED: Final = 78
"""No progress for ``run.stall_seconds``: restart with ``resume=auto``."""

START_AGAIN: Final = frozenset({LOST_PEER, PREEMPTED, STALLED})
"""After these, and no others, a scheduler starts the same command again with ``resume=auto``."""
MEANING: Final = {
    LOST_PEER: "a rank lost contact with another",
    DIVERGED: "the run diverges",
    PREEMPTED: "asked to stop, and saved",
    STALLED: "no progress",
}
"""Descriptions for messages."""


class EndedEarly(Exception):
    """A run that ended before its last step; the message says why."""

    status: ClassVar[int]
    """Exit status of ``mythos train``."""


class LostPeer(EndedEarly):
    """A rank lost contact with another; raised on every rank that notices."""

    status = LOST_PEER


class Diverged(EndedEarly):
    """Neither skips nor rollbacks have helped the run; the message is a diagnosis for the user."""

    status = DIVERGED


class Preempted(EndedEarly):
    """The run has been saved and ends before its last step; the message says why and how to resume."""

    status = PREEMPTED
