"""The machines that the run's processes live on."""

from typing import Literal

from mythos.config.base import PositiveInt, config


@config
class ClusterConfig:
    """``local``: this machine, or several on which ``torchrun`` was started by hand."""

    kind: Literal["local"] = "local"
    num_nodes: PositiveInt = 1
    num_devices: PositiveInt = 1
    """Devices, and processes, on each node."""
    timeout_seconds: PositiveInt = 600
    """How long ranks wait for each other before the run ends with an error."""
    num_threads: PositiveInt | None = None
    """CPU threads of torch in each process; null leaves torch's own choice."""

    @property
    def world_size(self) -> int:
        """Processes of the run."""
        return self.num_nodes * self.num_devices
