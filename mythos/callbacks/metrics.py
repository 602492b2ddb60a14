"""Where callbacks write metrics and messages: the trainer's loggers and the terminal, from the first rank."""

import sys

import lightning.pytorch as pl

from mythos.callbacks.base import Metrics
from mythos.data.datamodule import TokenDataModule


class MetricsWriter:
    """Writes metrics to every tracker, with the number of tokens that have been trained on."""

    def __init__(self, data: TokenDataModule, seq_len: int) -> None:
        self.data = data
        self.seq_len = seq_len

    def write(self, trainer: pl.Trainer, metrics: Metrics, step: int) -> None:
        """Write metrics that are the same on every rank."""
        metrics = {"tokens": float(self.data.next_sample * self.seq_len), **metrics}
        for logger in trainer.loggers if trainer.is_global_zero else []:
            logger.log_metrics(metrics, step)


def announce(trainer: pl.Trainer, who: str, title: str, text: str) -> None:
    """Print a message to stderr and send it as an alert to the trackers that have alerts."""
    if trainer.is_global_zero:
        print(f"{who}: {title}: {text}", file=sys.stderr, flush=True)
        for logger in trainer.loggers:
            if hasattr(logger, "alert"):
                logger.alert(title, text)
