"""A file of records, ``metrics.jsonl`` or ``trace.jsonl``, to which a resumed run appends."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mythos.config import records
from mythos.files import write_text


class RecordFile:
    """Writes one JSON object per line and flushes it; see ``mythos.config.records`` for the schema."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open ``path`` to append after ``first_step``; records of later steps, which were not saved, are dropped."""
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # an incomplete last line is dropped
        kept = [line for line in lines if json.loads(line).get("step", math.inf) <= first_step]
        head = json.dumps({"schema": records.SCHEMA})
        write_text(path, "".join(f"{line}\n" for line in (head, *kept)))
        self.file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any], step: int | None) -> None:
        """Append numbers, or nested lists of numbers, by name."""
        line = json.dumps({"step": step, "time": time.time(), **record}, separators=(",", ":"))
        self.file.write(line + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
