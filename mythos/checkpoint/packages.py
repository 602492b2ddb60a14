"""Packages of loop parts: those that a checkpoint was trained with, and those that are installed. No torch."""

import sys

from mythos.checkpoint.manifest import Manifest
from mythos.config import plugins
from mythos.config.base import ConfigError, decode
from mythos.config.parts import ENTRY_POINTS, check_parts
from mythos.config.run import RunConfig


def trained_config(manifest: Manifest, label: str) -> RunConfig:
    """Return the configuration of a checkpoint, and print a warning for each part of another package version.

    Args:
        label: name of the checkpoint in messages.

    Raises:
        ConfigError: the package of a part is not installed, or the part cannot be used.
    """
    for line in changed_packages(manifest, label):
        print(line, file=sys.stderr)
    config = decode(RunConfig, manifest.config)
    check_parts(config.model)
    return config


def changed_packages(manifest: Manifest, label: str) -> list[str]:
    """Return one sentence for each part whose package differs from the one of the checkpoint.

    Raises:
        ConfigError: no installed package provides a part.
    """
    installed = {each.name: f"{each.package} {each.version}" for each in plugins.described(ENTRY_POINTS)}
    for name, package in manifest.packages.items():
        if name not in installed:
            raise ConfigError(
                f"{label}: the model has the loop part {name!r} of {package}, but no installed package provides it; "
                "install that package."
            )
    return [
        f"{label}: the loop part {name!r} was trained with {package}, but {installed[name]} is installed."
        for name, package in manifest.packages.items()
        if installed[name] != package
    ]
