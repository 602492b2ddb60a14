"""A trained model back from its run directory."""

import sys
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
    found = store.newest(run / "checkpoints", lambda text: print(f"warning: {text}", file=sys.stderr))
    if found is None:
        raise ConfigError(f"{run}: no checkpoint that verifies; train it first, or name a run's directory.")
    path, manifest = found
    config = decode(RunConfig, manifest.config)
    state = torch.load(path / store.STATE_FILE, map_location=device, weights_only=False)["state_dict"]
    model = Mythos(config.model).to(device)
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    return config, model.eval(), manifest
