"""What is written down while a run trains; ``metrics.jsonl`` always is."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import PositiveInt, config


@config
class JsonlTracking:
    """Only the run directory's ``metrics.jsonl``."""

    kind: Literal["jsonl"] = "jsonl"
    log_every: PositiveInt = 10
    """Optimiser steps between training records."""
    trace_every: PositiveInt = 50
    """Optimiser steps between records of per-loop state norms."""


@config
class WandbTracking:
    """Also Weights & Biases; ``mode=offline`` writes under the run directory and needs no network."""

    kind: Literal["wandb"] = "wandb"
    log_every: PositiveInt = 10
    trace_every: PositiveInt = 50
    project: str = "mythos"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


TrackingConfig = Annotated[JsonlTracking | WandbTracking, Field(discriminator="kind")]
