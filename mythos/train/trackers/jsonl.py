"""``metrics.jsonl``: the metrics of a run, without a library."""

from pathlib import Path

from mythos.callbacks.record_file import RecordFile
from mythos.train.trackers.base import Tracker


class JsonlTracker(Tracker):
    """Writes all metrics to a file in the run's directory."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open ``path`` to append after ``first_step``."""
        super().__init__()
        self.file = RecordFile(path, first_step)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.file.write(metrics, step)

    def end(self, status: str) -> None:
        self.file.close()
