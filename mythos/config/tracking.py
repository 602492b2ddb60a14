"""What is written down while a run trains; ``metrics.jsonl`` always is."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import PositiveInt, config
from mythos.config.telemetry import TelemetryConfig


@config
class JsonlTracking(TelemetryConfig):
    """Only the run directory's ``metrics.jsonl``."""

    kind: Literal["jsonl"] = "jsonl"
    log_every: PositiveInt = 10
    """Optimiser steps between training records."""


@config
class WandbTracking(TelemetryConfig):
    """Also Weights & Biases; ``mode=offline`` writes under the run directory and needs no network."""

    kind: Literal["wandb"] = "wandb"
    log_every: PositiveInt = 10
    project: str = "mythos"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


TrackingConfig = Annotated[JsonlTracking | WandbTracking, Field(discriminator="kind")]
