"""MLflow: a run of an experiment on a tracking server."""

import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunStatus, RunTag

from mythos.config.base import flatten
from mythos.config.tracking import MlflowTracking
from mythos.files import read_regular, write_text
from mythos.train.trackers.base import Tracker

_MAX_METRICS, _MAX_TAGS, _MAX_TAG_CHARACTERS = 1000, 100, 5000
"""Limits of MLflow for one request and one tag."""


class MlflowTracker(Tracker):
    """Logs the metrics of a step in one request; a resumed run continues under the id in ``<run>/mlflow-id``."""

    def __init__(self, config: MlflowTracking, name: str, directory: Path, facts: dict[str, Any]) -> None:
        super().__init__()
        self.client = MlflowClient(tracking_uri=config.uri)
        path = directory / "mlflow-id"
        if path.exists():
            self.run_id = read_regular(path).decode()
            self.client.update_run(self.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        else:
            experiment = self.client.get_experiment_by_name(config.experiment)
            experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(config.experiment)
            self.run_id = self.client.create_run(experiment_id, run_name=name).info.run_id
            write_text(path, self.run_id)
        # Tags may change when a run resumes, parameters may not.
        tags = [RunTag(key, str(value)[:_MAX_TAG_CHARACTERS]) for key, value in flatten(facts).items()]
        for start in range(0, len(tags), _MAX_TAGS):
            self.client.log_batch(self.run_id, tags=tags[start : start + _MAX_TAGS])

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        now = int(time.time() * 1000)
        rows = [Metric(name, value, now, step or 0) for name, value in metrics.items()]
        for start in range(0, len(rows), _MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=rows[start : start + _MAX_METRICS])

    def alert(self, title: str, text: str) -> None:
        self.client.set_tag(self.run_id, f"alert.{title}", text[:_MAX_TAG_CHARACTERS])

    def end(self, status: str) -> None:
        self.client.set_terminated(self.run_id, "FINISHED" if status == "success" else "FAILED")
