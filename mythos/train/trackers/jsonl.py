"""``metrics.jsonl``: the record of a run that needs no library."""

import json
import time
from pathlib import Path

from mythos.config import records
from mythos.files import write_text
from mythos.train.trackers.base import Tracker


class JsonlTracker(Tracker):
    """One JSON object a line, flushed as it is written; see ``mythos.config.records`` for the schema."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open ``path`` to go on after ``first_step``; records of later steps came from a lost continuation."""
        super().__init__()
        kept = [line for line in _complete_lines(path) if json.loads(line).get("step", 0) <= first_step]
        head = json.dumps({"schema": records.SCHEMA})
        write_text(path, "".join(f"{line}\n" for line in (kept or [head])))
        self.file = path.open("a", encoding="utf-8")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.file.write(json.dumps({"step": step, "time": time.time(), **metrics}) + "\n")
        self.file.flush()

    def end(self, status: str) -> None:
        self.file.close()


def _complete_lines(path: Path) -> list[str]:
    """The lines that were written to their end."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
