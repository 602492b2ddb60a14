"""The stream as Lightning knows it, with a position that survives a restart."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from mythos.config.data import DataConfig
from mythos.data.loader import training_loader, validation_loader
from mythos.data.manifest import read_manifest
from mythos.types import Batch


class TokenDataModule(LightningDataModule):
    """Training micro-batches without end, and the same held-out ones every time.

    ``next_sample`` is the global index of the first sample that no optimiser step has used. The loader reads
    ahead, so only the owner of the steps knows it: call ``set_position`` after each one.

    Args:
        num_validation_batches: micro-batches in one look at the held-out split, over all ranks.

    Raises:
        ConfigError: ``config.dir`` is no packed dataset.
    """

    def __init__(self, config: DataConfig, seed: int, num_validation_batches: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.num_validation_batches = num_validation_batches
        self.manifest = read_manifest(Path(config.dir))
        self.next_sample = 0

    def set_position(self, next_sample: int) -> None:
        """Say that every sample before ``next_sample`` has been trained on or skipped."""
        self.next_sample = next_sample

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches of this rank from ``next_sample`` on."""
        return training_loader(self.config, self.seed, self.next_sample, *self._rank_and_world_size())

    def val_dataloader(self) -> DataLoader[Batch]:
        """This rank's share of the first held-out micro-batches."""
        return validation_loader(self.config, self.num_validation_batches, *self._rank_and_world_size())

    def state_dict(self) -> dict[str, Any]:
        """The position, one integer."""
        return {"next_sample": self.next_sample}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved position; the next ``train_dataloader`` starts there."""
        self.next_sample = state_dict["next_sample"]

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
