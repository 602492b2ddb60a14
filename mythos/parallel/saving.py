"""Saving and resuming for the Lightning strategies of this project: fragments and JSON, without pickle."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.strategies import Strategy

from mythos.checkpoint.fragments import Fragment, FragmentReader
from mythos.checkpoint.manifest import read_manifest
from mythos.checkpoint.store import STATE_FILE
from mythos.config.os_errors import explained
from mythos.parallel.partition import partition_of
from mythos.parallel.snapshot import buffers_of, fragments_of, restore, verify


class Snapshot(NamedTuple):
    """This rank's part of a checkpoint. Its tensors are those in use: copy them before the next step."""

    fragments: Iterable[Fragment]
    shapes: dict[str, tuple[int, ...]]
    state: dict[str, Any]


class LayoutFreeCheckpoints(Strategy):
    """Mixin of strategies: ``Trainer.save_checkpoint(path, storage_options=take)`` passes a Snapshot to ``take``."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return {}

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        return False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Callable[[Snapshot], None] | None = None
    ) -> None:
        assert storage_options is not None, "saving needs a function that takes the snapshot"
        excluded = ("state_dict", "optimizer_states", "lr_schedulers")
        state = {key: value for key, value in checkpoint.items() if key not in excluded}
        module = self.lightning_module
        assert module is not None
        partition, buffers = partition_of(module, self.optimizers[0]), buffers_of(module)
        shapes = partition.shapes | {name: tuple(buffer.shape) for name, buffer in buffers.items()}
        storage_options(Snapshot(fragments_of(partition, buffers), shapes, state))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Fill this rank's slices from a checkpoint of any layout, and check them against its checksums."""
        directory, module = Path(checkpoint_path), self.lightning_module
        assert module is not None
        buffers = buffers_of(module)
        restore(partition_of(module, self.optimizers[0]), buffers, FragmentReader(directory))
        self.update_weights()
        # A new partition: restoring has created optimiser states that the previous one does not contain.
        verify(partition_of(module, self.optimizers[0]), buffers, read_manifest(directory).checksums)
        with explained(directory / STATE_FILE):
            state = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
        # Schedules are functions of the step and options are the configuration's; neither is restored.
        return state | {"state_dict": {}, "optimizer_states": [], "lr_schedulers": []}

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        """Do nothing: ``load_checkpoint`` restores it."""

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Do nothing: ``load_checkpoint`` restores it."""

    def update_weights(self) -> None:
        """Copy the fp32 slices to the model's weights, where they are separate tensors."""
