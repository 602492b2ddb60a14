"""How often a run reads its training windows, and the limit ``data.max_epochs``."""

from pathlib import Path

from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.data.skips import merge
from mythos.data.stream import source_positions
from mythos.data.windows import Windows


def check_epochs(config: RunConfig) -> None:
    """Check that no source is read more often than ``data.max_epochs`` over the whole run.

    Raises:
        ConfigError: the run is longer than its data, with both numbers of tokens and what to change.
    """
    data, limit = config.data, config.data.max_epochs
    if limit is None:
        return
    for source, directory in enumerate(data.directories):
        num_windows = len(Windows(Path(directory), "train", data.seq_len, keep_partial=False))
        num_samples = _samples_of(config, source, config.run.num_steps)
        if num_samples <= limit * num_windows:
            continue
        name = "data.dir" if data.dir is not None else "data.sources"
        raise ConfigError(
            f"{name}: {directory} has {num_windows * data.seq_len:,} training tokens, but {config.run.num_steps:,} "
            f"steps (run.num_steps) read {num_samples * data.seq_len:,} from it, {num_samples / num_windows:,.2f} "
            f"epochs where data.max_epochs is {limit:g}; pack more text, "
            f"{_shorter(config, source, int(limit * num_windows))}or raise data.max_epochs."
        )


def _shorter(config: RunConfig, source: int, num_allowed: int) -> str:
    """Advise the largest number of steps that reads at most ``num_allowed`` samples of a source, if there is one."""
    low, high = 0, config.run.num_steps
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _samples_of(config, source, middle) <= num_allowed else (low, middle - 1)
    return f"set run.num_steps={low}, " if low else ""


def _samples_of(config: RunConfig, source: int, num_steps: int) -> int:
    """Count the samples of a source up to the end of a step, skipped ones included."""
    data = config.data
    return source_positions(data, num_steps * data.batch_size, merge(data.skipped))[source]
