"""What every tracker can do."""

from abc import abstractmethod
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from lightning.pytorch.loggers import Logger


class Tracker(Logger):
    """Takes records as Lightning's loggers do, matrices and alerts; lives on rank 0 only."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def version(self) -> str:
        return ""

    @abstractmethod
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write one record down."""

    def log_arrays(self, arrays: Mapping[str, npt.ArrayLike], step: int) -> None:
        """Show arrays of ``trace.jsonl``; a tracker that cannot leaves them to the run directory."""

    def alert(self, title: str, text: str) -> None:
        """Tell the people who watch the run."""

    def finalize(self, status: str) -> None:
        """End the tracker with ``success`` or ``failed``; what comes after the first call has no effect."""
        if self.is_open:
            self.is_open = False
            self.end(status)

    @abstractmethod
    def end(self, status: str) -> None:
        """Write out what is held back and let go."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration is handed over when the tracker is made."""
