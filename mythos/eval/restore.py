"""Restore a trained model from its run directory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mythos.checkpoint import store
from mythos.checkpoint.fragments import FragmentReader
from mythos.checkpoint.manifest import Manifest
from mythos.checkpoint.packages import trained_config
from mythos.config.base import ConfigError
from mythos.config.data import DataConfig, Source
from mythos.config.run import RunConfig
from mythos.data.kept import kept_data
from mythos.data.manifest import data_fingerprint, read_common_manifest, read_manifest
from mythos.model.mythos import Mythos


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the given device; for None the GPU if there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def restore(run: Path, device: torch.device) -> tuple[RunConfig, Mythos, Manifest]:
    """Return the configuration, the model in evaluation mode, and the manifest of a run's newest valid checkpoint.

    Raises:
        ConfigError: the directory contains no checkpoint that verifies.
    """
    newest = store.newest(run / store.FOLDER)
    if newest is None and (run / "config.json").is_file():
        raise ConfigError(
            f"{run}: the run has no checkpoint that verifies yet; wait for its first one (run.checkpoint.every), or "
            "continue training with resume=auto if it has ended."
        )
    if newest is None:
        raise ConfigError(f"{run}: no checkpoint that verifies; train it first, or name a run's directory.")
    path, manifest = newest
    config = trained_config(manifest, str(path))
    model = Mythos(config.model, config.halting).to(device)
    load_weights(model, path)
    return config, model.eval(), manifest


def held_out_data(run: Path, config: RunConfig, manifest: Manifest, data: Sequence[Path]) -> DataConfig:
    """Return the configuration of the data on which a run is evaluated.

    Args:
        data: folders of packed data, in place of those that the run was trained on; empty for the latter.

    Raises:
        ConfigError: the data are missing, or were packed by another tokenizer.
    """
    if not data:
        check_data(config, manifest)
        return config.data
    directories = [str(path) for path in data]
    tokenizer = read_common_manifest(directories).tokenizer_sha256
    kept = kept_data(run, manifest.data_fingerprint)
    if data_fingerprint(directories) != manifest.data_fingerprint and (
        kept is None or kept.tokenizer_sha256 != tokenizer
    ):
        reason = "this run has kept none" if kept is None else f"the run's is {kept.tokenizer_sha256[:12]}"
        raise ConfigError(
            f"--data: {directories[0]} was packed by the tokenizer {tokenizer[:12]}, but {reason}; name the data of "
            "the run, or others that its tokenizer packed."
        )
    return replace(
        config.data, dir=None, sources=tuple(Source(dir=path, weight=1.0) for path in directories), stages=()
    )


def check_data(config: RunConfig, manifest: Manifest) -> None:
    """Check that the packed data are those of the checkpoint, since other data may have another tokenizer.

    Raises:
        ConfigError: the data are missing, or have been packed again since.
    """
    for directory in config.data.directories:
        try:
            read_manifest(Path(directory))
        except ConfigError as error:
            sentence = str(error).rpartition("; ")[0] or str(error)
            raise ConfigError(f"{sentence}; restore the run's data, or name their folder by --data.") from None
    fingerprint = data_fingerprint(config.data.directories)
    if fingerprint != manifest.data_fingerprint:
        raise ConfigError(
            f"{config.data.directories[0]}: the packed data have the fingerprint {fingerprint}, but the checkpoint was "
            f"trained on {manifest.data_fingerprint}, so their tokenizer may be another one; restore the data, or name "
            "their folder by --data."
        )


def load_weights(model: Mythos, checkpoint: Path) -> None:
    """Load a verified checkpoint's weights into a model; only halting gates may be missing on either side."""
    reader = FragmentReader(checkpoint)
    tensors = model.state_dict()
    foreign = [name for name in tensors.keys() ^ set(reader.names) if not name.startswith("halting.")]
    assert not foreign, f"weights of another model: {foreign}"
    for name in tensors.keys() & set(reader.names):
        tensors[name].copy_(reader.tensor(name))
