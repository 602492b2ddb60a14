"""trackio: runs in a local database or a Hugging Face Space."""

from typing import Any

import trackio

from mythos.config.tracking import TrackioTracking
from mythos.train.trackers.base import Tracker


class TrackioTracker(Tracker):
    """Logs all metrics with their step; a resumed run continues under its name."""

    def __init__(self, config: TrackioTracking, name: str, is_resumed: bool, facts: dict[str, Any]) -> None:
        super().__init__()
        self.run = trackio.init(
            project=config.project,
            name=name,
            space_id=config.space,
            config=facts,
            resume="allow" if is_resumed else "never",
            embed=False,
        )

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.run.log(metrics, step=step)

    def alert(self, title: str, text: str) -> None:
        self.run.alert(title, text)

    def end(self, status: str) -> None:
        self.run.finish()
