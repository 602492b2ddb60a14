"""Expand a sweep's file and a command line into the overrides of each job, in the syntax of Hydra's multirun."""

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mythos.config.base import ConfigError, decode, suggestion
from mythos.config.overrides import check_override
from mythos.config.sweep import SweepConfig

_OWN = ("run.dir", "run.name", "resume")
"""Keys that the sweep sets for each job."""
_MAX_NAME = 100


class JobSpec(NamedTuple):
    """One run of a sweep, as text."""

    name: str
    own: tuple[str, ...]
    """The overrides in which it differs from other jobs."""
    overrides: tuple[str, ...]
    """All of its overrides, including ``own``, in the order in which they apply."""


class Expansion(NamedTuple):
    """A sweep as a command line specifies it."""

    config: SweepConfig
    name: str | None
    """Name of the sweep, if the file or the command line gives one."""
    shared: tuple[str, ...]
    """Overrides of every job."""
    jobs: tuple[JobSpec, ...]
    """Empty for a search."""


def expand(arguments: list[str], config_dir: Path) -> Expansion:
    """Read ``sweep=FILE``, ``sweep.KEY=VALUE`` and overrides of the run, each with one value or several.

    The command line takes precedence: a key that it sets, with one value or several, replaces that of the file.

    Raises:
        ConfigError: one sentence per mistake.
    """
    files = [argument.partition("=")[2] for argument in arguments if argument.startswith("sweep=")]
    if len(files) > 1:
        raise ConfigError(f"sweep: {len(files)} files were given, {', '.join(files)}; give one.")
    about_sweep = [argument for argument in arguments if argument.startswith("sweep.")]
    about_runs = [argument for argument in arguments if not argument.startswith(("sweep.", "sweep="))]
    config = _read_sweep(files[0] if files else None, about_sweep, config_dir)
    jobs, shared = _combine(config, about_runs, config_dir)
    if config.search is not None and jobs != [JobSpec("", (), shared)]:
        raise ConfigError("search: the command line gives several values; a search draws its own, so give one of each.")
    name = config.name or (files[0] if files else None)
    return Expansion(config, name, shared, () if config.search is not None else tuple(_named(jobs)))


def _read_sweep(file: str | None, overrides: list[str], config_dir: Path) -> SweepConfig:
    """Read the configuration of the sweep: the file under ``conf/sweep`` and the command line's changes to it."""
    for override in overrides:
        check_override(override)
    folder = config_dir / "sweep"
    if file is not None and not (folder / f"{file}.yaml").is_file():
        options = [path.stem for path in folder.glob("*.yaml")]
        raise ConfigError(f"sweep: no file {file}.yaml in {folder}; {suggestion(file, options)}")
    try:
        given: Any = {} if file is None else OmegaConf.load(folder / f"{file}.yaml")
        raw = OmegaConf.merge({"launcher": {"kind": "local"}}, given)
        for parsed in OverridesParser.create().parse_overrides(overrides):
            OmegaConf.update(raw, parsed.key_or_group.removeprefix("sweep."), parsed.value(), force_add=True)
        plain = OmegaConf.to_container(raw, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"sweep: {' '.join(str(error).split())}") from None
    try:
        return decode(SweepConfig, plain)
    except ConfigError as error:
        raise ConfigError("\n".join(f"sweep.{sentence}" for sentence in str(error).splitlines())) from None


def _combine(config: SweepConfig, arguments: list[str], config_dir: Path) -> tuple[list[JobSpec], tuple[str, ...]]:
    """Combine each named job with each combination of the values, and the overrides of all jobs.

    A name is joined from the overrides that differ; ``_named`` makes it a folder's name.
    """
    given = _parse(arguments, config_dir)
    replaced = given.keys()
    shared = {key: values for key, values in _parse(config.overrides, config_dir).items() if key not in replaced}
    grid = {key: values for key, values in _parse(config.grid, config_dir).items() if key not in replaced}
    axes = [values for values in (grid | shared | given).values() if len(values) > 1]
    fixed = tuple(values[0] for values in (shared | grid).values() if len(values) == 1)
    last = tuple(values[0] for values in given.values() if len(values) == 1)
    jobs = []
    for name, overrides in (config.jobs or {"": ()}).items():
        named = {key: values for key, values in _parse(overrides, config_dir).items() if key not in replaced}
        if several := [values for values in named.values() if len(values) > 1]:
            raise ConfigError(f"sweep.jobs.{name}: {several[0][0]} is one of several values; move the key to grid.")
        own = tuple(values[0] for values in named.values())
        if taken := set(named) & set(_OWN):
            raise ConfigError(f"sweep.jobs.{name}: the sweep sets {', '.join(taken)} for each job; leave it out.")
        kept = tuple(override for override in fixed if _key(override) not in named)
        for combination in itertools.product(*axes):
            parts = [name] if name else []
            label = "_".join(parts + [_label(override) for override in combination])
            jobs.append(JobSpec(label, own + combination, kept + own + combination + last))
    return jobs, fixed + last


def _parse(overrides: list[str] | tuple[str, ...], config_dir: Path) -> dict[str, list[str]]:
    """Return the overrides by key, with Hydra's signs: one for each value."""
    GlobalHydra.instance().clear()
    by_key: dict[str, list[str]] = {}
    with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        for text in overrides:
            check_override(text, several=True)
            try:
                override = parser.parse_overrides([text])[0]
                by_key[override.get_key_element()] = _values(override, text)
            except (HydraException, ValueError) as error:
                raise ConfigError(f"{text}: not understood ({' '.join(str(error).split())}).") from None
    return by_key


def _values(override: Override, text: str) -> list[str]:
    key = override.key_or_group
    if override.is_hydra_override() or key == "resume" or (key in _OWN and override.is_sweep_override()):
        raise ConfigError(f"{key}: the sweep sets this for each of its jobs; leave {text} out.")
    if not override.is_sweep_override():
        return [text]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{key}: {text} is not a list of values; draw from a range with search in a file of conf/sweep."
        )
    values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if not values:
        raise ConfigError(f"{key}: {text} matches nothing; give at least one value.")
    return values


def _key(override: str) -> str:
    return override.partition("=")[0]


def _label(override: str) -> str:
    """Return an override as part of a folder's name."""
    key, _, value = override.lstrip("+").partition("=")
    return re.sub(r"[^\w.+-]+", "-", f"{key}-{value}").strip("-")


def _named(jobs: list[JobSpec]) -> list[JobSpec]:
    """Give the jobs names that can be folders; numbers where the names are too long or not unique."""
    names = [job.name or "job" for job in jobs]
    for name in names:
        if re.fullmatch(r"[\w.+-]+", name) is None or name.startswith("."):
            raise ConfigError(f"sweep.jobs: {name!r} is a folder's name; write it with letters, digits and . + - _.")
    if len(set(names)) < len(names) or max(map(len, names)) > _MAX_NAME:
        names = [f"job-{index:03d}" for index in range(len(jobs))]
    return [job._replace(name=name) for name, job in zip(names, jobs, strict=True)]
