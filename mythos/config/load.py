"""Load configurations: Hydra composes YAML and overrides, ``decode`` validates and freezes the result."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mythos.config.base import ConfigError, decode, suggestion
from mythos.config.groups import default_config_dir
from mythos.config.model import ModelConfig
from mythos.config.overrides import check_override
from mythos.config.parts import check_parts
from mythos.config.run import RunConfig
from mythos.config.secrets import check_overrides, check_secrets
from mythos.config.variants import obsolete_keys


def check_run(config: RunConfig) -> None:
    """Refuse loop parts that cannot be used; see ``config.parts.check_parts``."""
    check_parts(config.model)


def load(
    overrides: list[str], config_dir: Path | None = None, check: Callable[[RunConfig], None] = check_run
) -> RunConfig:
    """Compose ``train.yaml`` with Hydra overrides, freeze it and check it.

    Raises:
        ConfigError: one sentence per mistake, with the dotted path and what to do.
    """
    config = decode(RunConfig, compose_raw("train", overrides, config_dir or default_config_dir()))
    check(config)
    return config


def load_model(path: Path) -> ModelConfig:
    """Read one file of ``conf/model``."""
    try:
        model = decode(ModelConfig, OmegaConf.to_container(OmegaConf.load(path)))
        check_parts(model)
        return model
    except ConfigError as error:
        sentences = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: {sentence}" for sentence in sentences)) from None


def compose_raw(name: str, overrides: list[str], config_dir: Path) -> dict:
    """Compose ``<config_dir>/<name>.yaml`` and the overrides with Hydra, into plain data.

    Keys of an experiment for which the chosen variant of a group has no field are dropped with a line on stderr.
    """
    if not (config_dir / f"{name}.yaml").is_file():
        raise ConfigError(f"--config-dir: {config_dir} holds no {name}.yaml; point it at a folder like conf/.")
    for override in overrides:
        check_override(override)
    check_overrides(overrides)
    obsolete = obsolete_keys(overrides, lambda part: _compose(name, part, config_dir))
    removed = {override[1:].partition("=")[0] for override in overrides if override.startswith("~")}
    deletions = [f"~{key.path}" for key in obsolete if not removed & {key.path, key.path.partition(".")[0]}]
    raw = _compose(name, [*deletions, *overrides], config_dir)
    check_secrets(raw)
    if os.environ.get("RANK", "0") == "0":
        for key in obsolete:
            print(f"mythos: {key}", file=sys.stderr)
    return raw


def _compose(name: str, overrides: list[str], config_dir: Path) -> dict:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
            composed = compose(name, overrides=[_settable(override) for override in overrides])
        raw = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(_sentence(error, name, config_dir)) from None
    assert isinstance(raw, dict)
    return raw


def _settable(override: str) -> str:
    """Let ``a.b=c`` set keys that no YAML mentions; validation finds the unknown ones."""
    is_plain = re.match(r"[\w-]+\.", override) is not None
    return f"++{override}" if is_plain else override


def _sentence(error: Exception, name: str, config_dir: Path) -> str:
    """Return Hydra's message as one sentence, with a suggestion where a name was misspelt."""
    text = " ".join(str(error).split())
    if isinstance(error, RecursionError):
        return "the values of ${...} refer to each other in a circle; give one of them a value."
    if unresolved := re.search(r"(.*) full_key: (\S+)", text):
        return f"{unresolved[2]}: {_reason(unresolved[1])}"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        key = unknown.group(1)
        known = [*compose_raw(name, [], config_dir), "experiment"]
        if key in known:
            return f"{key}: a group is chosen by a file's name, {key}=NAME, and its keys are set as {key}.KEY=VALUE."
        return f"{key}: no such key; {suggestion(key, known)}"
    if missing := re.search(r"Could not find '([^']+)'", text):
        group, _, option = missing.group(1).rpartition("/")
        options = [path.stem for path in (config_dir / group).glob("*.yaml")]
        return f"{group}: no file {option}.yaml in {config_dir / group}; {suggestion(option, options)}"
    if absent := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return f"~{absent[1]}: there is no such key to remove; leave it out."
    if twice := re.search(r"Multiple values for (\S+)\. To override", text):
        return f"+{twice[1]}: the group has an option already; write {twice[1]}=NAME, without the plus."
    return text.replace("++", "")


def _reason(text: str) -> str:
    """Return why OmegaConf found no value."""
    if variable := re.search(r"Environment variable '([^']+)' not found", text):
        return f"the environment variable {variable[1]} is not set; set it, or give the value itself."
    if text.startswith("Missing mandatory value"):
        return "a value is needed and none was given."
    return f"{text[0].lower()}{text[1:].rstrip('.')}; give the value itself."
