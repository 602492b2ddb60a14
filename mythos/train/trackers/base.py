"""The interface of trackers."""

from abc import abstractmethod
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from lightning.pytorch.loggers import Logger


class Tracker(Logger):
    """Logs metrics as Lightning's loggers do, and arrays and alerts; exists on rank 0 only."""

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
        """Log metrics of a step."""

    def log_arrays(self, arrays: Mapping[str, npt.ArrayLike], step: int) -> None:
        """Log arrays of ``trace.jsonl``; by default nothing, since the run directory has them."""

    def alert(self, title: str, text: str) -> None:
        """Notify the users who follow the run."""

    def finalize(self, status: str) -> None:
        """End the tracker with the status ``success`` or ``failed``; further calls have no effect."""
        if self.is_open:
            self.is_open = False
            self.end(status)

    @abstractmethod
    def end(self, status: str) -> None:
        """Flush and close."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: trackers receive the configuration at construction."""
