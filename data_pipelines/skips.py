"""Count the inputs that a command leaves out, and name them in a warning."""

import sys
from collections import Counter
from typing import Final, Protocol

from tqdm import tqdm

_MOST_NAMES: Final = 5


class SkipCounter(Protocol):
    """Counts inputs that are left out: ``Skips``, or the ``Ledger`` of a corpus."""

    def skip(self, reason: str, name: str) -> None:
        """Count one input."""


class Skips:
    """Counts inputs that are not read, by reason, and stores the first names of each reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def skip(self, reason: str, name: str) -> None:
        """Count one input; ``name`` must be encodable."""
        self.counts[reason] += 1
        names = self.names.setdefault(reason, [])
        if len(names) < _MOST_NAMES:
            names.append(name)

    def clear(self) -> None:
        """Forget everything; for a text that is read a second time."""
        self.counts.clear()
        self.names.clear()

    def sentences(self) -> list[str]:
        """One sentence for each reason, with the number and the first names."""
        return [self._sentence(reason, count) for reason, count in self.counts.items()]

    def _sentence(self, reason: str, count: int) -> str:
        names = self.names[reason]
        more = f" and {count - len(names):,} more" if count > len(names) else ""
        return f"{count:,} skipped, {reason}: {', '.join(names)}{more}."


def warn(sentence: str) -> None:
    """Print a warning on stderr, above any progress bar."""
    tqdm.write(f"mythos-data: {sentence}", file=sys.stderr)
