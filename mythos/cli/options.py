"""Arguments that several subcommands share."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add Hydra overrides and the folder to compose from."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override values of the configuration")
    add_config_dir(parser)


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add the folder to compose from."""
    help_text = "compose from this folder instead of the packaged conf/"
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help=help_text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the file to which results are also written."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")


def check_paths(arguments: argparse.Namespace) -> None:
    """Refuse paths that no file system takes, and ``~``, which a shell expands only at the beginning of a word.

    Raises:
        ConfigError: there is one.
    """
    from mythos.config.base import ConfigError
    from mythos.config.paths import checked_path

    for name, value in vars(arguments).items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path):
                try:
                    checked_path(str(path))
                except ValueError as error:
                    raise ConfigError(f"{name}: {error}") from None


@contextmanager
def as_options() -> Iterator[None]:
    """Turn a ``ValueError`` about a Python argument, ``name: sentence``, into one about the option of that name.

    Raises:
        ConfigError: instead of the ``ValueError``.
    """
    from mythos.config.base import ConfigError

    try:
        yield
    except ValueError as error:
        name, _, sentence = str(error).partition(":")
        raise ConfigError(f"--{name.replace('_', '-')}:{sentence}") from None
