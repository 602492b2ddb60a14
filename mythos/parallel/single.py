"""Strategy for one process on one device."""

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from mythos.config.parallel import ParallelBase
from mythos.parallel.compile import compile_parts
from mythos.parallel.saving import LayoutFreeCheckpoints


class SingleStrategy(LayoutFreeCheckpoints, SingleDeviceStrategy):
    """Lightning's ``SingleDeviceStrategy`` with the checkpoints of this project and compiled blocks."""

    def __init__(self, config: ParallelBase, device: torch.device) -> None:
        super().__init__(device)
        self.config = config

    def model_to_device(self) -> None:
        super().model_to_device()
        if self.config.compile:
            assert self.lightning_module is not None
            compile_parts(self.lightning_module)
