"""A sweep as it will run: every job's configuration checked, and the whole frozen in the sweep's directory."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mythos.config.base import ConfigError, difference, encode
from mythos.config.expand import JobSpec, expand, quoted
from mythos.config.load import compose_raw, default_config_dir, load
from mythos.config.run import RunConfig
from mythos.config.sweep import SearchConfig, SweepConfig
from mythos.files import write_text
from mythos.report import jobs as directory_format
from mythos.train.run_directory import refuse

_MAX_SHOWN = 12
"""Mistakes and differences that are told at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedJob:
    """A job that may start: its configuration is valid."""

    directory: Path
    overrides: tuple[str, ...]
    """Those that tell it from other jobs."""
    arguments: tuple[str, ...]
    """Of ``mythos train``."""
    after: tuple[str, ...]
    """Commands that follow the training."""
    config: RunConfig

    @property
    def name(self) -> str:
        """The job's name, and its run's."""
        return self.directory.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a sweep will do."""

    directory: Path
    sweep: SweepConfig
    jobs: tuple[PlannedJob, ...]
    """Empty for a search."""
    base: dict[str, Any]
    """The run without what tells jobs apart, composed and not checked; trials start from it."""
    shared: tuple[str, ...]
    config_dir: Path | None

    def job(self, spec: JobSpec) -> PlannedJob:
        """Compose and check one job.

        Raises:
            ConfigError: each line opens with the job's name and the dotted path.
        """
        search = self.sweep.search
        own_place = [quoted("run.dir", str(self.directory)), quoted("run.name", spec.name), "resume=auto"]
        overrides = [*spec.overrides, *own_place]
        try:
            config = load(overrides, self.config_dir)
            refuse(config)
            if config.cluster.num_nodes > 1:
                raise ConfigError(
                    f"cluster.num_nodes is {config.cluster.num_nodes}, but a job of a sweep lives on one node; set "
                    "cluster.num_nodes=1."
                )
            if search is not None and search.objective_num_loops not in config.run.validation.num_loops:
                raise ConfigError(
                    f"sweep.search.objective_num_loops is {search.objective_num_loops} but run.validation.num_loops is "
                    f"{list(config.run.validation.num_loops)}; choose one of them."
                )
        except ConfigError as error:
            raise ConfigError("\n".join(f"job {spec.name}: {line}" for line in str(error).splitlines())) from None
        place = [] if self.config_dir is None else ["--config-dir", str(self.config_dir.resolve())]
        return PlannedJob(
            directory=self.directory / spec.name,
            overrides=spec.own,
            arguments=("train", *place, "--", *overrides),
            after=self.sweep.after,
            config=config,
        )


def make(arguments: list[str], config_dir: Path | None = None) -> Plan:
    """Compose every job of a command line and check it, before anything is written or started.

    Raises:
        ConfigError: one line for each mistake, with the job's name and the dotted path.
    """
    found = expand(arguments, config_dir or default_config_dir())
    base = compose_raw("train", list(found.shared), config_dir or default_config_dir())
    directory = Path(base["run"]["dir"]).absolute() / (found.name or base["run"]["name"])
    plan = Plan(directory=directory, sweep=found.config, jobs=(), base=base, shared=found.shared, config_dir=config_dir)
    search = found.config.search
    specs = found.jobs if search is None else _corners(search, found.shared)
    jobs, mistakes = [], []
    for spec in specs:
        try:
            jobs.append(plan.job(spec))
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        rest = len(mistakes) - _MAX_SHOWN
        raise ConfigError("\n".join(mistakes[:_MAX_SHOWN] + ([f"and {rest} mistakes more."] if rest > 0 else [])))
    return plan if search is not None else replace(plan, jobs=tuple(jobs))


def freeze(plan: Plan) -> None:
    """Write ``sweep.json``, or hold the plan against the one that is there.

    Raises:
        ConfigError: the directory holds another sweep; says what differs.
    """
    now = _as_json(plan)
    if directory_format.is_sweep(plan.directory):
        changes = list(_changes(directory_format.read_plan(plan.directory), now))
        if changes:
            rest = len(changes) - _MAX_SHOWN
            shown = changes[:_MAX_SHOWN] + ([f"and {rest} more"] if rest > 0 else [])
            raise ConfigError(
                f"sweep.name: {plan.directory} holds another plan; undo these changes or choose another sweep.name:\n  "
                + "\n  ".join(shown)
            )
        return
    try:
        write_text(plan.directory / directory_format.PLAN_FILE, json.dumps(now, indent=1))
    except OSError as error:
        raise ConfigError(
            f"run.dir: {plan.directory} cannot be written ({error.strerror}); choose another run.dir."
        ) from None


def _corners(search: SearchConfig, shared: tuple[str, ...]) -> Iterable[JobSpec]:
    """Trials at the ends of each range, the others at their first value: if they are valid, so is what is between."""
    first = {key: values.ends[0] for key, values in search.ranges.items()}
    for key, values in search.ranges.items():
        for end in values.ends:
            own = tuple(quoted(path, value) for path, value in (first | {key: end}).items())
            yield JobSpec(f"trial-with-{key}-{end}", own, shared + own)


def _as_json(plan: Plan) -> dict:
    search = plan.sweep.search
    jobs = [{"name": job.name, "overrides": job.overrides, "config": encode(job.config)} for job in plan.jobs]
    found = {"schema": directory_format.SCHEMA, "name": plan.directory.name, "jobs": jobs}
    if search is not None:
        found |= {"search": encode(search), "config": plan.base}
    return json.loads(json.dumps(found))


def _changes(old: dict, new: dict) -> Iterable[str]:
    """What differs between two plans; a search may be given more trials."""
    before, after = ({job["name"]: job for job in plan["jobs"]} for plan in (old, new))
    for name in before | after:
        if name not in after:
            yield f"{name}: no job any more"
        elif name not in before:
            yield f"{name}: a new job"
        else:
            yield from (f"{name}: {line}" for line in difference(before[name]["config"], after[name]["config"]))
    searches = [{"search": plan.get("search")} for plan in (old, new)]
    yield from (line for line in difference(*searches) if not line.startswith("search.num_trials:"))
    yield from difference(old.get("config", {}), new.get("config", {}))
