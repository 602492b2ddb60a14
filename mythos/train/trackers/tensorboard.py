"""TensorBoard: event files under ``<run>/tensorboard``."""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from mythos.train.trackers.base import Tracker


class TensorBoardTracker(Tracker):
    """Logs every metric as a scalar; ``purge_step`` hides steps that were not saved and run again."""

    def __init__(self, directory: Path, first_step: int, facts: dict[str, Any]) -> None:
        super().__init__()
        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=first_step + 1, flush_secs=30)
        self.writer.add_text("config", f"```\n{json.dumps(facts, indent=1)}\n```", first_step)
        self.step = first_step

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.step = step or self.step
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, self.step)

    def alert(self, title: str, text: str) -> None:
        self.writer.add_text(f"alert/{title}", text, self.step)

    def end(self, status: str) -> None:
        self.writer.close()
