"""Builds the trackers of a run: ``metrics.jsonl`` always, and the tracker that the configuration names."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from pydantic import ValidationError

from mythos.config import plugins, records
from mythos.config.base import ConfigError, encode
from mythos.config.run import RunConfig
from mythos.config.tracking import (
    TRACKER_PLUGINS,
    ForeignTracking,
    JsonlTracking,
    MlflowTracking,
    TensorBoardTracking,
    TrackioTracking,
    WandbTracking,
)
from mythos.files import read_regular
from mythos.train.provenance import write_provenance
from mythos.train.trackers.base import Tracker
from mythos.train.trackers.jsonl import JsonlTracker
from mythos.train.trackers.tolerant import Tolerant


def build_loggers(config: RunConfig, directory: Path, first_step: int) -> list[Logger]:
    """Return the run's trackers, the file first; rank 0 only, other ranks have none.

    Args:
        first_step: step from which the run resumes, or 0.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        return []
    facts = {**encode(config), **write_provenance(directory, first_step)}
    path = directory / records.FILE_NAME
    trackers: list[Logger] = [JsonlTracker(path, first_step)]
    chosen = _tracker(config, directory, first_step, facts)
    return trackers if chosen is None else [*trackers, Tolerant(chosen)]


def close(loggers: list[Logger], status: str = "failed") -> None:
    """End every tracker, with the status ``success`` or ``failed``."""
    for logger in loggers:
        logger.finalize(status)


def _tracker(config: RunConfig, directory: Path, first_step: int, facts: dict[str, Any]) -> Tracker | None:
    """The tracker beside the file; its library is imported only here.

    Raises:
        ConfigError: it cannot be started.
    """
    try:
        return _started(config, directory, first_step, facts)
    except ConfigError:
        raise
    except Exception as error:  # of any library, or of its connection
        raise ConfigError(
            f"tracking.kind is {config.tracking.kind}, but the tracker cannot be started ({_reason(error)}); correct "
            "its settings and environment variables, or set tracking=jsonl."
        ) from error


def _reason(error: Exception) -> str:
    """Describe an exception in one line, without the values that it read, which may be secrets."""
    if isinstance(error, ValidationError):
        return ", ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg'].lower()}" for item in error.errors())
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _started(config: RunConfig, directory: Path, first_step: int, facts: dict[str, Any]) -> Tracker | None:
    match config.tracking:
        case JsonlTracking():
            return None
        case WandbTracking() as wandb:
            from mythos.train.trackers.wandb import WandbTracker

            tracker = WandbTracker(wandb, config, directory, facts)
            for line in read_regular(directory / records.FILE_NAME).splitlines()[1:]:
                record = json.loads(line)
                tracker.restore(record, record["step"])
            return tracker
        case TensorBoardTracking():
            from mythos.train.trackers.tensorboard import TensorBoardTracker

            return TensorBoardTracker(directory, first_step, facts)
        case MlflowTracking() as mlflow:
            from mythos.train.trackers.mlflow import MlflowTracker

            return MlflowTracker(mlflow, config.run.name, directory, facts)
        case TrackioTracking() as trackio:
            from mythos.train.trackers.trackio import TrackioTracker

            return TrackioTracker(trackio, config.run.name, first_step > 0, facts)
        case ForeignTracking():
            return _foreign(config, directory, first_step, facts)


def _foreign(config: RunConfig, directory: Path, first_step: int, facts: dict[str, Any]) -> Tracker:
    """The tracker that another package's entry point makes.

    Raises:
        ConfigError: it is not installed, cannot be imported, refuses the options or returns no ``Tracker``.
    """
    chosen = config.tracking
    assert isinstance(chosen, ForeignTracking)
    arguments = (config, directory, first_step, facts)
    tracker = plugins.build(TRACKER_PLUGINS, chosen.name, "tracking", *arguments, options=chosen.options)
    if not isinstance(tracker, Tracker):
        raise ConfigError(
            f"tracking.name: {chosen.name} returns a {type(tracker).__name__}; it must return a "
            f"{Tracker.__module__}.Tracker."
        )
    return tracker
