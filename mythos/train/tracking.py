"""Where records go: ``metrics.jsonl`` always, and the tracker that the configuration names."""

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

from mythos.config import records
from mythos.config.base import encode
from mythos.config.run import RunConfig
from mythos.config.tracking import WandbTracking
from mythos.files import write_text


class JsonlLogger(Logger):
    """One JSON object a line, flushed as it is written; see ``mythos.config.records`` for the schema."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open ``path`` to go on after ``first_step``; records of later steps came from a lost continuation."""
        super().__init__()
        kept = [line for line in _complete_lines(path) if json.loads(line).get("step", 0) <= first_step]
        head = json.dumps({"schema": records.SCHEMA})
        write_text(path, "".join(f"{line}\n" for line in (kept or [head])))
        self.file = path.open("a", encoding="utf-8")

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.file.write(json.dumps({"step": step, "time": time.time(), **metrics}) + "\n")
        self.file.flush()

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in ``config.json``."""

    def finalize(self, status: str) -> None:
        self.file.close()


def build_loggers(config: RunConfig, directory: Path, first_step: int) -> list[Logger]:
    """The run's trackers; a resumed W&B run goes on under the same id."""
    loggers: list[Logger] = [JsonlLogger(directory / records.FILE_NAME, first_step)]
    match config.tracking:
        case WandbTracking() as wandb:
            logger = WandbLogger(
                name=config.run.name,
                id=_run_id(directory),
                save_dir=directory,
                project=wandb.project,
                entity=wandb.entity,
                offline=wandb.mode == "offline",
                resume="allow",
                config=encode(config),
            )
            loggers.append(logger)
    return loggers


def close(loggers: list[Logger]) -> None:
    """End what Lightning leaves open: a W&B run lasts until it is told that it is over."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _complete_lines(path: Path) -> list[str]:
    """The lines that were written to their end."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _run_id(directory: Path) -> str:
    """An id that is drawn once and kept beside the metrics."""
    path = directory / "wandb-id"
    if not path.exists():
        write_text(path, f"{time.time_ns():x}")
    return path.read_text(encoding="utf-8")
