"""A trained model back from its run directory."""

from pathlib import Path

import torch

from mythos.checkpoint import store
from mythos.checkpoint.fragments import FragmentReader
from mythos.checkpoint.manifest import Manifest
from mythos.config.base import ConfigError, decode
from mythos.config.run import RunConfig
from mythos.data.manifest import data_fingerprint, read_manifest
from mythos.model.mythos import Mythos


def restore(run: Path, device: torch.device) -> tuple[RunConfig, Mythos, Manifest]:
    """The configuration and the model of a run's newest sound checkpoint, ready for evaluation.

    Raises:
        ConfigError: the directory holds no checkpoint that verifies.
    """
    found = store.newest(run / store.FOLDER)
    if found is None and (run / "config.json").is_file():
        raise ConfigError(
            f"{run}: the run has no checkpoint that verifies yet; wait for its first one (run.checkpoint.every), or go "
            "on with resume=auto if it has ended."
        )
    if found is None:
        raise ConfigError(f"{run}: no checkpoint that verifies; train it first, or name a run's directory.")
    path, manifest = found
    config = decode(RunConfig, manifest.config)
    model = Mythos(config.model, config.halting).to(device)
    load_weights(model, path)
    return config, model.eval(), manifest


def check_data(config: RunConfig, manifest: Manifest) -> None:
    """Refuse data that are not those of the checkpoint: their tokens may mean something else.

    Raises:
        ConfigError: the packed data have been moved or packed anew since.
    """
    for directory in config.data.directories:
        read_manifest(Path(directory))
    found = data_fingerprint(config.data.directories)
    if found != manifest.data_fingerprint:
        raise ConfigError(
            f"{config.data.directories[0]}: the packed data have the fingerprint {found}, but the checkpoint was "
            f"trained on {manifest.data_fingerprint}, so their tokenizer may be another one; restore the data."
        )


def load_weights(model: Mythos, checkpoint: Path) -> None:
    """Fill a model with a verified checkpoint's weights; only a halting gate may be new or left out."""
    reader = FragmentReader(checkpoint)
    tensors = model.state_dict()
    foreign = [name for name in tensors.keys() ^ set(reader.names) if not name.startswith("halting.")]
    assert not foreign, f"weights of another model: {foreign}"
    for name in tensors.keys() & set(reader.names):
        tensors[name].copy_(reader.tensor(name))
