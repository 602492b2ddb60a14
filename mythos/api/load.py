"""Load a trained model from the directory of its run, or from an exported folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer

from mythos.api.model import LanguageModel
from mythos.checkpoint import store
from mythos.config.base import ConfigError
from mythos.config.model import ModelConfig
from mythos.config.run import RunConfig
from mythos.data.tokenizer import open_documents, tokenizer_of_run
from mythos.eval.restore import choose_device, restore
from mythos.export.load import MODEL_TYPE, load_export


class Loaded(NamedTuple):
    """A trained model with all that its use needs."""

    model: LanguageModel
    """In evaluation mode; its default number of loops is the mean depth of its training."""
    tokenizer: Tokenizer
    """``encode(text).ids`` begins with the token that opens a document, as texts do in training."""
    config: RunConfig | ModelConfig
    """The run's configuration as of its checkpoint; of an export, which holds no more, the architecture."""


def load(path: str | Path, *, device: str | torch.device | None = None) -> Loaded:
    """Load the newest valid checkpoint of a run, or a folder that ``mythos export`` wrote.

    Weights are fp32, also those that were exported in 16 bits. No code of the folder is executed.

    Args:
        path: a run's directory, or an exported folder.
        device: where the model runs; None for the GPU if there is one.

    Raises:
        ConfigError: the folder is neither a run nor an export, is damaged, or its tokenizer is missing.
    """
    path, device = Path(path), choose_device(device)
    raw = _read_config(path)
    if raw.get("model_type") == MODEL_TYPE:
        exported, tokenizer, num_loops = load_export(path, raw)
        return Loaded(LanguageModel(exported.to(device), num_loops).eval(), tokenizer, exported.config)
    if not (path / store.FOLDER).is_dir() and "run" not in raw:
        raise ConfigError(
            f"{path}: a folder that is neither run nor export; name a run's directory, such as runs/quickstart, or a "
            "folder that mythos export wrote."
        )
    config, model, manifest = restore(path, device)
    tokenizer, separator_id = tokenizer_of_run(path, config.data.directories, manifest.data_fingerprint)
    return Loaded(LanguageModel(model, config.mean_loops).eval(), open_documents(tokenizer, separator_id), config)


def _read_config(path: Path) -> dict[str, Any]:
    """Contents of the folder's ``config.json``; empty if there is no such JSON object."""
    try:
        raw = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}
