"""Counts of what a stage read, kept, dropped and skipped."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from datatrove.data import Document

from mythos.data.text import encodable
from mythos.files import write_text

MOST_PROBLEMS: Final = 1000
"""Largest number of problems that are stored as text; all are counted."""

_PART: Final = "\0"
"""Separates the parts of a count's name; reasons and licences may hold any printable character."""


class Ledger:
    """Counts documents and problems of one or more tasks; ledgers can be added."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def count_read(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents and count them as read."""
        for document in documents:
            self._add("read", document)
            yield document

    def count_kept(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents and count them as kept, in total and by source and licence."""
        for document in documents:
            self._add("kept", document)
            self._add(f"source{_PART}{document.metadata['source']}", document)
            self._add(f"licence{_PART}{document.metadata['licence'].replace(_PART, ' ')}", document)
            yield document

    def drop(self, reason: str, document: Document) -> None:
        """Count a document that was read but is not kept."""
        self._add(f"dropped{_PART}{reason}", document)

    def skip(self, reason: str, name: str) -> None:
        """Count an input that could not be read, and store its name."""
        self.counts[f"skipped{_PART}{reason}"] += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(encodable(f"{name}: {reason}"))

    def note(self, name: str, number: int = 1) -> None:
        """Count an event that dropped no document."""
        self.counts[f"noted{_PART}{name}"] += number

    def add(self, other: "Ledger") -> None:
        """Add another ledger's counts and problems to this one."""
        self.counts += other.counts
        self.problems = (self.problems + other.problems)[:MOST_PROBLEMS]

    def write(self, path: Path) -> None:
        """Save to a JSON file."""
        write_text(path, json.dumps({"counts": self.counts, "problems": self.problems}, sort_keys=True))

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """Load a ledger that ``write`` saved."""
        ledger = cls()
        saved = json.loads(path.read_text(encoding="utf-8"))
        ledger.counts.update(saved["counts"])
        ledger.problems = saved["problems"]
        return ledger

    def summary(self) -> dict[str, Any]:
        """Counts as nested dicts for ``report.json``."""
        nested: dict[str, Any] = {}
        for key, number in sorted(self.counts.items()):
            *groups, name = key.split(_PART)
            node = nested
            for group in groups:
                node = node.setdefault(group, {})
            node[name] = number
        return nested

    def _add(self, group: str, document: Document) -> None:
        self.counts[f"{group}{_PART}documents"] += 1
        self.counts[f"{group}{_PART}bytes"] += len(document.text.encode())
