"""The machine that the run's processes live on."""

from typing import Literal

from mythos.config.base import PositiveInt, config


@config
class ClusterConfig:
    """``local``: this machine, started by hand."""

    kind: Literal["local"] = "local"
    num_threads: PositiveInt | None = None
    """CPU threads of torch; null leaves torch's own choice."""
