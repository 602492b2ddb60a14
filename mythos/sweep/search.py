"""Trials of a search: suggested by optuna, evaluated by the validation losses that their runs log."""

import json
import zlib
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.exit_status import DIVERGED
from mythos.config.expand import JobSpec
from mythos.config.overrides import quoted
from mythos.config.sweep import ChoiceRange, HalvingStop, IntegerRange, MedianStop, RealRange, SearchConfig
from mythos.files import read_regular
from mythos.report.jobs import JobRecord, read_job
from mythos.sweep.drive import Queue, print_progress, was_lost
from mythos.sweep.plan import PlannedJob, SweepPlan

JOURNAL = "search.journal"
"""optuna's journal of all trials, in the sweep's directory."""


class Search:
    """Gets trials from optuna and reports their results to it; resumes trials that were interrupted."""

    def __init__(self, plan: SweepPlan) -> None:
        """Open or create the journal in the sweep's directory."""
        assert plan.sweep.search is not None
        self._plan, self._config = plan, plan.sweep.search
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = JournalFileBackend(str(plan.directory / JOURNAL))
        self._study = optuna.create_study(
            study_name="sweep",
            storage=optuna.storages.JournalStorage(backend),
            pruner=_pruner(self._config),
            load_if_exists=True,
        )
        self._trials: dict[str, Trial] = {}
        self._reported: dict[str, int] = {}
        """Last step whose loss was reported to optuna, by trial."""
        self._jobs: dict[str, PlannedJob] = {}
        self._to_resume: list[PlannedJob] = []
        self._num_restarts: dict[str, int] = {}

    def take_over(self, queue: Queue) -> None:
        """Take over the trials that an earlier process has started: running, ended or interrupted ones."""
        started = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        jobs = [job for trial in started if (job := self._job_of(Trial(self._study, trial._trial_id))) is not None]
        queue.check(jobs)
        for job in jobs:
            record = read_job(job.directory).record
            if job.name in queue.running:
                continue
            if record.stopped == "early" or not was_lost(record):
                self.ended(record)
            else:
                self._to_resume.append(job)

    def next(self) -> PlannedJob | None:
        """A trial to resume, or a new one while there are fewer than ``num_trials``."""
        if self._to_resume:
            return self._to_resume.pop(0)
        while (number := len(self._study.get_trials(deepcopy=False))) < self._config.num_trials:
            self._study.sampler = _sampler(self._config, number)
            if (job := self._job_of(self._study.ask())) is not None:
                return job
        return None

    def watch(self, queue: Queue) -> None:
        """Report new validation losses of running trials, and stop those that the pruner rejects."""
        for name in queue.running & self._trials.keys():
            trial = self._trials[name]
            for step, loss in self._losses(name):
                if step > self._reported.get(name, 0):
                    self._reported[name] = step
                    trial.report(loss, step)
                    if step < self._jobs[name].config.run.num_steps and trial.should_prune():
                        queue.stop(name, "early")
                        break

    def ended(self, record: JobRecord) -> bool:
        """Report the end of a trial to optuna; a diverged trial counts as pruned, so that the search learns from it."""
        trial, losses = self._trials[record.name], self._losses(record.name)
        if record.status == 0 and losses:
            self._study.tell(trial, losses[-1][1])
        elif record.stopped == "early" or record.status == DIVERGED:
            self._study.tell(trial, state=TrialState.PRUNED)
        elif was_lost(record) and self._num_restarts.setdefault(record.name, self._plan.sweep.max_restarts):
            self._num_restarts[record.name] -= 1
            self._to_resume.append(self._jobs[record.name])
            return True
        else:
            self._study.tell(trial, state=TrialState.FAIL)
        return False

    def _job_of(self, trial: Trial) -> PlannedJob | None:
        """The trial's job; None if its values are valid alone but not together, which fails the trial."""
        own = tuple(quoted(key, value) for key, value in _suggest(self._config, trial).items())
        try:
            job = self._plan.job(JobSpec(f"trial-{trial.number:04d}", own, self._plan.shared + own))
        except ConfigError as error:
            print_progress(f"{error}")
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        self._trials[job.name], self._jobs[job.name] = trial, job
        return job

    def _losses(self, name: str) -> list[tuple[int, float]]:
        return validation_losses(self._plan.directory / name / records.FILE_NAME, self._config.objective_num_loops)


def validation_losses(path: Path, num_loops: int) -> list[tuple[int, float]]:
    """Step and validation loss after ``num_loops``, from complete lines of ``metrics.jsonl``; empty without it."""
    name, losses = records.validation_loss(num_loops), dict[int, float]()
    lines = read_regular(path).splitlines(keepends=True) if path.is_file() else []
    for line in lines:
        if f'"{name}"'.encode() in line and line.endswith(b"\n"):
            try:
                metrics = json.loads(line)
                value, step = metrics[name], metrics["step"]
            except (ValueError, KeyError, TypeError):
                continue  # damaged; the run drops the line when it resumes
            losses[step] = float("nan") if value is None else value
    return sorted(losses.items())


def _suggest(config: SearchConfig, trial: Trial) -> dict[str, object]:
    """A value for each path; values that the trial already has are kept."""
    suggested: dict[str, object] = {}
    for path, values in config.ranges.items():
        match values:
            case RealRange(low=low, high=high, log=log):
                suggested[path] = trial.suggest_float(path, low, high, log=log)
            case IntegerRange(low=low, high=high, step=step, log=log):
                suggested[path] = trial.suggest_int(path, low, high, step=step, log=log)
            case ChoiceRange(choices=choices):
                suggested[path] = trial.suggest_categorical(path, choices)
    return suggested


def _sampler(config: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """A sampler seeded by the trial's number, so that an interrupted search suggests the same values."""
    seed = zlib.crc32(f"{config.seed}/{number}".encode())
    match config.kind:
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)


def _pruner(config: SearchConfig) -> optuna.pruners.BasePruner:
    match config.stop:
        case MedianStop(num_startup_trials=num_startup_trials, num_warmup_steps=num_warmup_steps):
            return optuna.pruners.MedianPruner(num_startup_trials, num_warmup_steps)
        case HalvingStop(min_steps=min_steps, factor=factor):
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=min_steps, reduction_factor=factor)
        case _:
            return optuna.pruners.NopPruner()
