"""The plan of a sweep: the checked configuration of every job, frozen in the sweep's directory."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mythos.config.base import ConfigError, config, decode, difference, encode, fingerprint
from mythos.config.expand import JobSpec, expand
from mythos.config.load import compose_raw, default_config_dir, load
from mythos.config.overrides import quoted
from mythos.config.paths import FolderName, FolderPath
from mythos.config.records import SCHEMA
from mythos.config.run import RunConfig
from mythos.config.secrets import check_secrets
from mythos.config.sweep import SearchConfig, SweepConfig
from mythos.files import write_text
from mythos.report import jobs as directory_format
from mythos.train.run_directory import refuse

_MAX_SHOWN = 12
"""Errors and differences that are reported at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedJob:
    """A job with a valid configuration."""

    directory: Path
    overrides: tuple[str, ...]
    """The overrides that distinguish it from other jobs."""
    arguments: tuple[str, ...]
    """Arguments of ``mythos`` for the training."""
    after: tuple[str, ...]
    """Commands to run after the training."""
    config: RunConfig

    @property
    def name(self) -> str:
        """The name of the job and of its run."""
        return self.directory.name


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """The jobs of a sweep, or the base of a search."""

    directory: Path
    sweep: SweepConfig
    jobs: tuple[PlannedJob, ...]
    """Empty for a search."""
    base: dict[str, Any]
    """The composed, unchecked configuration without the overrides of single jobs; trials start from it."""
    shared: tuple[str, ...]
    config_dir: Path | None

    def job(self, spec: JobSpec) -> PlannedJob:
        """Compose and check one job.

        Raises:
            ConfigError: each line begins with the job's name and the dotted path.
        """
        search = self.sweep.search
        directory = [quoted("run.dir", str(self.directory)), quoted("run.name", spec.name), "resume=auto"]
        overrides = [*spec.overrides, *directory]
        try:
            config = load(overrides, self.config_dir)
            refuse(config)
            if config.cluster.num_nodes > 1:
                raise ConfigError(
                    f"cluster.num_nodes is {config.cluster.num_nodes}, but a job of a sweep runs on one node; set "
                    "cluster.num_nodes=1."
                )
            if search is not None and search.objective_num_loops not in config.run.validation.num_loops:
                raise ConfigError(
                    f"sweep.search.objective_num_loops is {search.objective_num_loops} but run.validation.num_loops is "
                    f"{list(config.run.validation.num_loops)}; choose one of them."
                )
        except ConfigError as error:
            raise ConfigError("\n".join(f"job {spec.name}: {line}" for line in str(error).splitlines())) from None
        config_option = [] if self.config_dir is None else ["--config-dir", str(self.config_dir.resolve())]
        return PlannedJob(
            directory=self.directory / spec.name,
            overrides=spec.own,
            arguments=("train", *config_option, "--", *overrides),
            after=self.sweep.after,
            config=config,
        )


def make(arguments: list[str], config_dir: Path | None = None) -> SweepPlan:
    """Compose and check every job of a command line, before anything is written or started.

    Raises:
        ConfigError: one line for each error, with the job's name and the dotted path.
    """
    expansion = expand(arguments, config_dir or default_config_dir())
    check_secrets({"sweep": encode(expansion.config)})
    base = compose_raw("train", list(expansion.shared), config_dir or default_config_dir())
    plan = SweepPlan(
        directory=_directory(base["run"], expansion.name),
        sweep=expansion.config,
        jobs=(),
        base=base,
        shared=expansion.shared,
        config_dir=config_dir,
    )
    search = expansion.config.search
    specs = expansion.jobs if search is None else _corners(search, expansion.shared)
    jobs, errors = [], []
    for spec in specs:
        try:
            jobs.append(plan.job(spec))
        except ConfigError as error:
            errors += str(error).splitlines()
    if search is None:
        errors += _repeated(jobs)
    if errors:
        rest = len(errors) - _MAX_SHOWN
        raise ConfigError("\n".join(errors[:_MAX_SHOWN] + ([f"and {rest} more errors."] if rest > 0 else [])))
    return plan if search is not None else replace(plan, jobs=tuple(jobs))


@config
class _Folder:
    """What a sweep reads of the section ``run`` of its jobs."""

    dir: FolderPath
    name: FolderName


def _directory(run: dict[str, Any], name: str | None) -> Path:
    """Return the sweep's directory: the name of the sweep, or else of the run, in ``run.dir``."""
    try:
        folder = decode(_Folder, {"dir": run["dir"], "name": name or run["name"]})
    except ConfigError as error:
        raise ConfigError("\n".join(f"run.{sentence}" for sentence in str(error).splitlines())) from None
    return Path(folder.dir).absolute() / folder.name


def _repeated(jobs: list[PlannedJob]) -> Iterable[str]:
    """One sentence for each job that would train what another one trains."""
    first: dict[str, str] = {}
    for job in jobs:
        name = first.setdefault(fingerprint(replace(job.config, run=replace(job.config.run, name="any"))), job.name)
        if name != job.name:
            yield f"job {job.name}: has the configuration of job {name}, so it trains the same; leave one of them out."


def freeze(plan: SweepPlan) -> None:
    """Write ``sweep.json``, or compare the plan with the existing one.

    Raises:
        ConfigError: the directory contains another sweep; lists the differences.
    """
    content = _as_json(plan)
    if directory_format.is_sweep(plan.directory):
        changes = list(_changes(directory_format.read_plan(plan.directory), content))
        if changes:
            rest = len(changes) - _MAX_SHOWN
            shown = changes[:_MAX_SHOWN] + ([f"and {rest} more"] if rest > 0 else [])
            raise ConfigError(
                f"sweep.name: {plan.directory} has another plan; undo these changes or choose another sweep.name:\n  "
                + "\n  ".join(shown)
            )
        return
    try:
        write_text(plan.directory / directory_format.PLAN_FILE, json.dumps(content, indent=1))
    except OSError as error:
        raise ConfigError(
            f"run.dir: {plan.directory} cannot be written ({error.strerror}); choose another run.dir."
        ) from None


def _corners(search: SearchConfig, shared: tuple[str, ...]) -> Iterable[JobSpec]:
    """Trials at the ends of each range, other ranges at their first value; if these are valid, so are all others."""
    first = {key: values.ends[0] for key, values in search.ranges.items()}
    for key, values in search.ranges.items():
        for end in values.ends:
            own = tuple(quoted(path, value) for path, value in (first | {key: end}).items())
            yield JobSpec(f"trial-with-{key}-{end}", own, shared + own)


def _as_json(plan: SweepPlan) -> dict:
    search = plan.sweep.search
    jobs = [{"name": job.name, "overrides": job.overrides, "config": encode(job.config)} for job in plan.jobs]
    content = {"schema": SCHEMA, "name": plan.directory.name, "jobs": jobs}
    if search is not None:
        content |= {"search": encode(search), "config": plan.base}
    return json.loads(json.dumps(content))


def _changes(old: dict, new: dict) -> Iterable[str]:
    """The differences between two plans; the number of trials of a search may differ."""
    before, after = ({job["name"]: job for job in plan["jobs"]} for plan in (old, new))
    for name in before | after:
        if name not in after:
            yield f"{name}: removed job"
        elif name not in before:
            yield f"{name}: new job"
        else:
            stored = encode(decode(RunConfig, before[name]["config"]))  # with the fields that have been added since
            yield from (f"{name}: {line}" for line in difference(stored, after[name]["config"]))
    searches = [{"search": plan.get("search")} for plan in (old, new)]
    yield from (line for line in difference(*searches) if not line.startswith("search.num_trials:"))
    yield from difference(old.get("config", {}), new.get("config", {}))
