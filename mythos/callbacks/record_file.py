"""A file of records, ``metrics.jsonl`` or ``trace.jsonl``, to which a resumed run appends."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mythos.config import records
from mythos.config.os_errors import explained
from mythos.files import open_regular, read_regular, write_text


class RecordFile:
    """Writes one JSON object per line and flushes it; see ``mythos.config.records`` for the schema."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open ``path`` to append after ``first_step``; records of later steps, which were not saved, are dropped.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        self.path = path
        with explained(path):
            kept = _records_until(path, first_step) if path.exists() else []
            head = json.dumps({"schema": records.SCHEMA})
            write_text(path, "".join(f"{line}\n" for line in (head, *kept)))
            self.file = open_regular(path, "a")

    def write(self, record: Mapping[str, Any], step: int | None) -> None:
        """Append numbers, or nested lists of numbers, by name.

        Raises:
            ConfigError: the disk refuses the write.
        """
        line = json.dumps({"step": step, "time": time.time(), **record}, separators=(",", ":"))
        with explained(self.path):
            self.file.write(line + "\n")
            self.file.flush()

    def close(self) -> None:
        """Close the file."""
        with explained(self.path):
            self.file.close()


def _records_until(path: Path, last_step: int) -> list[str]:
    """The file's records up to a step. Damaged lines are dropped with a warning, an incomplete last line without."""
    *lines, _ = read_regular(path).split(b"\n")
    kept, damaged = [], []
    for number, line in enumerate(lines, start=1):
        step = _step_of(line)
        if step is None:
            damaged.append(number)
        elif step <= last_step:
            kept.append(line.decode())
    if damaged:
        count = f"line {damaged[0]} is" if len(damaged) == 1 else f"{len(damaged)} lines, the first {damaged[0]}, are"
        print(f"warning: {path}: {count} damaged and dropped.", file=sys.stderr)
    return kept


def _step_of(line: bytes) -> float | None:
    """Step of a line; infinite for one that specifies the schema, None for a damaged one."""
    try:
        record = json.loads(line.decode())
        step = math.inf if "schema" in record else record["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int | float) else None
