"""A trained model back from its run directory."""

from pathlib import Path

import torch

from mythos.checkpoint import store
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
    load_weights(model, path, device)
    return config, model.eval(), manifest


def load_weights(model: Mythos, checkpoint: Path, device: torch.device) -> None:
    """Fill a model with a verified checkpoint's weights; only a halting gate may be new or left out."""
    state = torch.load(checkpoint / store.STATE_FILE, map_location=device, weights_only=False)["state_dict"]
    named = {name.removeprefix("model."): value for name, value in state.items()}
    differing = model.load_state_dict(named, strict=False)
    foreign = [name for name in (*differing[0], *differing[1]) if not name.startswith("halting.")]
    assert not foreign, f"weights of another model: {foreign}"
