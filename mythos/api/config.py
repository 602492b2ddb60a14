"""Compose the configuration of a run."""

from pathlib import Path

from mythos.config.load import load
from mythos.config.run import RunConfig


def load_config(*overrides: str, config_dir: str | Path | None = None) -> RunConfig:
    """Compose and check the configuration of a run, as ``mythos train`` does.

    Args:
        overrides: Hydra overrides, such as ``"model=debug"`` and ``"depth.mean=4"``.
        config_dir: folder to compose from; None for the packaged ``conf/``.

    Raises:
        ConfigError: one sentence for each mistake, with its dotted path.
    """
    return load(list(overrides), None if config_dir is None else Path(config_dir))
