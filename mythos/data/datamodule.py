"""Lightning data module of the stream, with a position that is saved and restored."""

from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from mythos.config.base import ConfigError
from mythos.config.data import DataConfig
from mythos.data import skips
from mythos.data.loader import training_loader, validation_loader
from mythos.data.manifest import read_common_manifest
from mythos.data.stream import source_positions
from mythos.types import Batch


class TokenDataModule(LightningDataModule):
    """Serves an endless stream of training micro-batches, and the same held-out ones at every validation.

    ``next_sample`` is the position in the stream of the first sample that no optimiser step has used. The loader
    prefetches, so only the training loop knows it: call ``set_position`` after each step. ``skipped`` holds the ranges
    of global sample indices that the stream skips.

    Args:
        num_validation_batches: micro-batches in one validation, over all ranks.

    Raises:
        ConfigError: a source is not a packed dataset, or its tokenizer differs from that of the first.
    """

    def __init__(self, config: DataConfig, seed: int, num_validation_batches: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.num_validation_batches = num_validation_batches
        self.manifest = read_common_manifest(config.directories)
        self.next_sample = 0
        self.skipped = skips.merge(config.skipped)

    def set_position(self, next_sample: int) -> None:
        """Record that every sample before the position ``next_sample`` has been trained on."""
        self.next_sample = next_sample

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches of this rank from ``next_sample`` on."""
        rank, world_size = self._rank_and_world_size()
        return training_loader(self.config, self.seed, self.next_sample, rank, world_size, skipped=self.skipped)

    def val_dataloader(self) -> DataLoader[Batch]:
        """This rank's share of the first held-out micro-batches."""
        return validation_loader(self.config, self.num_validation_batches, *self._rank_and_world_size())

    def state_dict(self) -> dict[str, Any]:
        """Return the position: one integer for the stream, one for each source, and the skipped ranges."""
        return {
            "next_sample": self.next_sample,
            "source_positions": source_positions(self.config, self.next_sample, self.skipped),
            "skipped": [list(span) for span in self.skipped],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a saved position; the next ``train_dataloader`` starts there.

        Raises:
            ConfigError: the sources' weights before the position have changed, or a range to skip lies before it.
        """
        position, saved = state_dict["next_sample"], skips.merge(state_dict["skipped"])
        positions = source_positions(self.config, position, saved)
        if positions != state_dict["source_positions"]:
            raise ConfigError(
                f"data.sources: the run has used {state_dict['source_positions']} samples of its sources, but "
                f"these weights would have used {positions}; keep the weights and change them in data.stages."
            )
        self.next_sample = position
        self.skipped = skips.add(saved, self.config.skipped, position)

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
