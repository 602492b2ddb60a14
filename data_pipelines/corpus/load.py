"""Compose a corpus's YAML and overrides with Hydra."""

import re
from pathlib import Path

from data_pipelines.corpus.config import CorpusConfig
from mythos.config.base import ConfigError, decode, suggestion
from mythos.config.load import compose_raw, default_config_dir


def load_corpus(name: str, overrides: list[str]) -> CorpusConfig:
    """Read the configuration from a YAML file, or from one of ``conf/corpus`` by its name.

    Raises:
        ConfigError: there is no such file, or it has errors; the message has one line per error, with the dotted path.
    """
    shipped = default_config_dir() / "corpus"
    path = Path(name) if name.endswith((".yaml", ".yml")) else shipped / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in shipped.glob("*.yaml")]
        raise ConfigError(f"{path}: no such file; {suggestion(path.stem, known)}")
    return decode(CorpusConfig, compose_raw(path.stem, list(map(_settable, overrides)), path.parent))


def _settable(override: str) -> str:
    """Let ``key=value`` set a key that the YAML leaves at its default; validation finds the unknown ones."""
    return f"++{override}" if re.match(r"\w+=", override) else override
