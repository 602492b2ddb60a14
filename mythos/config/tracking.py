"""Where metrics are written during training; ``metrics.jsonl`` is always written."""

import os
from dataclasses import field
from importlib.util import find_spec
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from mythos.config import plugins
from mythos.config.base import ConfigError, PositiveInt, config, suggestion
from mythos.config.plugins import PluginName

LIBRARIES: Final = {"wandb": "wandb", "tensorboard": "tensorboard", "mlflow": "mlflow", "trackio": "trackio"}
"""Kind of tracker to the package that it needs, which is also the module's name."""
_WANDB_MODES: Final = ("online", "offline", "shared", "disabled", "dryrun", "run")
"""Values of ``WANDB_MODE`` that W&B knows."""
TRACKER_PLUGINS: Final = "mythos.trackers"
"""Entry points of other packages' trackers, called as ``tracker(run, directory, first_step, facts, **options)``."""


@config
class ProfileConfig:
    """A window of steps under torch's profiler."""

    start: PositiveInt
    """The first step of the window; a run counts its steps from 1."""
    num_steps: PositiveInt = 3
    """Steps of the window."""
    memory: bool = True
    """Also record the CUDA allocator's history."""


@config
class Tracking:
    """Fields of every kind of tracker."""

    log_every: PositiveInt = 10
    """Optimiser steps between training metrics."""
    profile: ProfileConfig | None = None

    def is_record_step(self, step: int, num_steps: int) -> bool:
        """Whether training metrics are written after ``step``; they are also written after the first and the last."""
        return step % self.log_every == 0 or step in (1, num_steps)


@config
class JsonlTracking(Tracking):
    """Only the run directory's ``metrics.jsonl``."""

    kind: Literal["jsonl"] = "jsonl"


@config
class WandbTracking(Tracking):
    """Also Weights & Biases; ``mode=offline`` writes under the run directory and needs no network."""

    kind: Literal["wandb"] = "wandb"
    project: str = "mythos"
    """Project of the run."""
    entity: str | None = None
    """User or team; null takes the user's default."""
    mode: Literal["online", "offline"] = "online"
    """``offline`` needs no network."""
    max_cells: PositiveInt = 1_000_000
    """Largest number of values sent over the whole run for one kind of record; a longer run sends a part of them."""
    num_charts: PositiveInt = 50
    """How often in a run each chart over loops is sent."""


@config
class TensorBoardTracking(Tracking):
    """Also event files under ``<run>/tensorboard``."""

    kind: Literal["tensorboard"] = "tensorboard"


@config
class MlflowTracking(Tracking):
    """Also an MLflow server or store."""

    kind: Literal["mlflow"] = "mlflow"
    experiment: str = "mythos"
    """Experiment of the run."""
    uri: str | None = None
    """Address of the server or store; null reads ``MLFLOW_TRACKING_URI``. User and password belong in
    ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, not here."""


@config
class TrackioTracking(Tracking):
    """Also trackio, which keeps runs in a local database (``TRACKIO_DIR``) or a Hugging Face Space."""

    kind: Literal["trackio"] = "trackio"
    project: str = "mythos"
    """Project of the run."""
    space: str | None = None
    """``user/name`` of the Space; null stays on this machine."""


@config
class ForeignTracking(Tracking):
    """Also a tracker of another installed package."""

    kind: Literal["foreign"] = "foreign"
    name: PluginName
    """Name of its entry point in ``mythos.trackers``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of its constructor."""


TrackingConfig = Annotated[
    JsonlTracking | WandbTracking | TensorBoardTracking | MlflowTracking | TrackioTracking | ForeignTracking,
    Field(discriminator="kind"),
]


def check_library(tracking: TrackingConfig) -> None:
    """Check that the tracker's library is installed, without importing it, and the variable of W&B's mode.

    Raises:
        ConfigError: it is not installed, or the variable has a value that W&B does not know.
    """
    if isinstance(tracking, ForeignTracking):
        plugins.find(TRACKER_PLUGINS, tracking.name, "tracking.name")
    library = LIBRARIES.get(tracking.kind)
    if library is not None and find_spec(library) is None:
        raise ConfigError(
            f"tracking.kind is {tracking.kind} but {library} is not installed; run pip install {library}, "
            "or set tracking=jsonl."
        )
    mode = os.environ.get("WANDB_MODE")
    if tracking.kind == "wandb" and mode is not None and mode not in _WANDB_MODES:
        raise ConfigError(f"WANDB_MODE is {mode!r}, which W&B does not know; {suggestion(mode, list(_WANDB_MODES))}")
