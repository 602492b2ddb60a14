"""A trained model back from its run directory."""

from pathlib import Path

import torch

from mythos.checkpoint import store
from mythos.checkpoint.fragments import FragmentReader
from mythos.checkpoint.manifest import Manifest
from mythos.config.base import ConfigError, decode
from mythos.config.run import RunConfig
from mythos.model.mythos import Mythos


def restore(run: Path, device: torch.device) -> tuple[RunConfig, Mythos, Manifest]:
    """The configuration and the model of a run's newest sound checkpoint, ready for evaluation.

    Raises:
        ConfigError: the directory holds no checkpoint that verifies.
    """
    found = store.newest(run / store.FOLDER)
    if found is None:
        raise ConfigError(f"{run}: no checkpoint that verifies; train it first, or name a run's directory.")
    path, manifest = found
    config = decode(RunConfig, manifest.config)
    model = Mythos(config.model, config.halting).to(device)
    load_weights(model, path)
    return config, model.eval(), manifest


def load_weights(model: Mythos, checkpoint: Path) -> None:
    """Fill a model with a verified checkpoint's weights; only a halting gate may be new or left out."""
    reader = FragmentReader(checkpoint)
    tensors = model.state_dict()
    foreign = [name for name in tensors.keys() ^ set(reader.names) if not name.startswith("halting.")]
    assert not foreign, f"weights of another model: {foreign}"
    for name in tensors.keys() & set(reader.names):
        tensors[name].copy_(reader.tensor(name))
