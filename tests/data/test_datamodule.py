from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from mythos.config.base import ConfigError
from mythos.config.data import DataConfig
from mythos.data.datamodule import TokenDataModule
from mythos.train.build import load_only_given_checkpoint
from mythos.types import Batch

MakeDataset = Callable[..., Path]


class Recorder(LightningModule):
    """Accumulates two micro-batches per step by hand and records the sample ids."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []
        self.validated: list[int] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: Batch, batch_index: int) -> None:
        assert isinstance(batch, Batch)
        self.seen += batch.sample_ids_B.tolist()
        self.manual_backward(self.weight * 1.0)
        if batch_index % 2:
            self.optimizers().step()
            self.trainer.datamodule.set_position(int(batch.sample_ids_B[-1]) + 1)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.validated += batch.sample_ids_B.tolist()


def config_for(directory: Path, **changes: object) -> DataConfig:
    fields = {"dir": str(directory), "seq_len": 8, "batch_size": 4, "micro_batch_size": 2}
    return DataConfig(**(fields | changes))


def fit(directory: Path, num_steps: int, num_workers: int, checkpoint: Path | None) -> tuple[Recorder, Trainer]:
    data = TokenDataModule(config_for(directory, num_workers=num_workers), seed=0, num_validation_batches=2)
    trainer = Trainer(
        max_steps=num_steps,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],
    )
    load_only_given_checkpoint(trainer)
    module = Recorder()
    trainer.fit(module, data, ckpt_path=str(checkpoint) if checkpoint else None)
    return module, trainer


@pytest.mark.parametrize("num_workers", [0, 2])
def test_lightning_resumes_with_the_first_sample_not_trained_on(
    make_dataset: MakeDataset, tmp_path: Path, num_workers: int
) -> None:
    directory = make_dataset([200], validation=(50,))
    checkpoint = tmp_path / "half.ckpt"
    whole, _ = fit(directory, 6, num_workers, None)
    before, trainer = fit(directory, 3, num_workers, None)
    trainer.save_checkpoint(checkpoint)
    after, _ = fit(directory, 6, num_workers, checkpoint)
    assert whole.seen == list(range(24))
    assert before.seen + after.seen == whole.seen
    assert whole.validated[:4] == [0, 1, 2, 3]


def test_the_position_counts_trained_samples_not_prefetched_ones(make_dataset: MakeDataset) -> None:
    data = TokenDataModule(config_for(make_dataset([200])), seed=0, num_validation_batches=1)
    list(islice(data.train_dataloader(), 9))
    assert data.state_dict() == {"next_sample": 0, "source_positions": [0], "skipped": []}
    data.set_position(8)
    resumed = TokenDataModule(data.config, seed=0, num_validation_batches=1)
    resumed.load_state_dict(data.state_dict())
    assert next(iter(resumed.train_dataloader())).sample_ids_B.tolist() == [8, 9]


def test_a_missing_dataset_is_reported_at_construction(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mythos-data pack"):
        TokenDataModule(config_for(tmp_path), seed=0, num_validation_batches=1)
