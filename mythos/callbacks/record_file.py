"""A file of records, ``metrics.jsonl`` or ``trace.jsonl``, that a resumed run goes on with."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mythos.config import records
from mythos.files import write_text


class RecordFile:
    """One JSON object a line, flushed as it is written; see ``mythos.config.records`` for the schema."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open ``path`` to go on after ``first_step``; records of later steps came from a lost continuation."""
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # a last line that was cut off is dropped
        kept = [line for line in lines if json.loads(line).get("step", 0) <= first_step]
        head = json.dumps({"schema": records.SCHEMA})
        write_text(path, "".join(f"{line}\n" for line in (kept or [head])))
        self.file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any], step: int | None) -> None:
        """Append numbers, or nested lists of numbers, by name."""
        line = json.dumps({"step": step, "time": time.time(), **record}, separators=(",", ":"))
        self.file.write(line + "\n")
        self.file.flush()

    def close(self) -> None:
        """End the file."""
        self.file.close()
