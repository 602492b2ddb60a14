"""Configuration of a sweep: its jobs or its search, and the launcher."""

import re
import shlex
from dataclasses import field
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from mythos.config.base import Count, PositiveInt, config
from mythos.config.paths import FolderName

_COMMANDS: Final = ("evaluate", "export", "figures", "report", "sample")
"""Commands of ``mythos`` that only read a run or write beside it."""


@config
class LocalLauncher:
    """Processes of this machine, each with devices of its own."""

    kind: Literal["local"] = "local"
    num_parallel: PositiveInt | None = None
    """Jobs at a time; null means as many as the devices allow, or one without devices."""


@config
class SlurmLauncher:
    """Jobs of a SLURM cluster, one node each, through submitit."""

    kind: Literal["slurm"] = "slurm"
    num_parallel: PositiveInt = 64
    """Jobs that are queued or running at a time."""
    partition: str | None = None
    time_minutes: PositiveInt = 1440
    """Time limit of one SLURM job; a run that reaches it is saved and requeued."""
    num_cpus: PositiveInt | None = None
    """CPU cores of a job; null leaves it to SLURM."""
    memory_gb: PositiveInt | None = None
    """Host memory of a job; null leaves it to SLURM."""
    has_gpus: bool = True
    """Request ``cluster.num_devices`` GPUs; false on a cluster of CPUs."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch, name without dashes to value, such as ``{account: me}``."""


LauncherConfig = Annotated[LocalLauncher | SlurmLauncher, Field(discriminator="kind")]


@config
class RealRange:
    """Real numbers from ``low`` to ``high``."""

    kind: Literal["real"] = "real"
    low: float
    high: float
    log: bool = False
    """Draw uniformly over the logarithm."""

    def __post_init__(self) -> None:
        _check_range(self)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that must be valid for the whole range to be valid."""
        return (self.low, self.high)


@config
class IntegerRange:
    """Whole numbers from ``low`` to ``high``, both included."""

    kind: Literal["integer"] = "integer"
    low: int
    high: int
    step: PositiveInt = 1
    log: bool = False
    """Draw uniformly over the logarithm; needs a step of 1."""

    def __post_init__(self) -> None:
        _check_range(self)
        if self.log and self.step != 1:
            raise ValueError(f"step is {self.step} but log is true; set step=1 or log=false.")
        if (self.high - self.low) % self.step:
            raise ValueError(
                f"high is {self.high}, which is no multiple of step {self.step} above low {self.low}; "
                "choose a high that the steps reach."
            )

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that must be valid for the whole range to be valid."""
        return (self.low, self.high)


@config
class ChoiceRange:
    """One of several values."""

    kind: Literal["choice"] = "choice"
    choices: Annotated[tuple[str | int | float | bool | None, ...], Field(min_length=1)]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that must be valid for the whole range to be valid."""
        return self.choices


RangeConfig = Annotated[RealRange | IntegerRange | ChoiceRange, Field(discriminator="kind")]


def _check_range(given: RealRange | IntegerRange) -> None:
    if given.low > given.high:
        raise ValueError(f"low is {given.low} but high is {given.high}; exchange the two.")
    if given.log and given.low <= 0:
        raise ValueError(f"low is {given.low} but log is true; start above 0 or set log=false.")


@config
class NoStop:
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


@config
class MedianStop:
    """Stops a trial whose best loss so far is above the median of the others' at the same step (Vizier, 2017)."""

    kind: Literal["median"] = "median"
    num_startup_trials: Count = 4
    """Trials that must have finished before one is stopped."""
    num_warmup_steps: Count = 0
    """Optimiser steps for which no trial is stopped."""


@config
class HalvingStop:
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934): at ``min_steps * factor ** i`` steps, the
    best of every ``factor`` trials continues."""

    kind: Literal["halving"] = "halving"
    min_steps: PositiveInt
    factor: Annotated[int, Field(ge=2, strict=True)] = 3


StopConfig = Annotated[NoStop | MedianStop | HalvingStop, Field(discriminator="kind")]


@config
class SearchConfig:
    """Trials drawn from ranges, ranked by their validation loss."""

    kind: Literal["random", "tpe"]
    """``random``, or the tree-structured Parzen estimator (Bergstra et al. 2011), which learns from earlier trials."""
    num_trials: PositiveInt
    seed: Count = 0
    objective_num_loops: PositiveInt
    """The objective is the last validation loss at this number of loops, one of ``run.validation.num_loops``."""
    ranges: Annotated[dict[str, RangeConfig], Field(min_length=1)]
    """Dotted path of the run's configuration to the values that it may take."""
    stop: StopConfig = NoStop()


@config
class SweepConfig:
    """Several runs: a grid, named jobs or both, or a search."""

    name: FolderName | None = None
    """The sweep's folder is ``<run.dir>/<name>``; null takes the name of the file, or ``run.name`` without a file."""
    overrides: tuple[str, ...] = ()
    """Overrides of every job."""
    grid: tuple[str, ...] = ()
    """Overrides with several values each, in Hydra's syntax: ``depth.mean=2,4,8``; jobs are their combinations."""
    jobs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Overrides of each named job; with a grid, each job is combined with each combination."""
    search: SearchConfig | None = None
    launcher: LauncherConfig = LocalLauncher()
    max_restarts: Count = 5
    """How often one command restarts a job whose exit status asks for it."""
    after: tuple[str, ...] = ()
    """Commands of ``mythos`` for each job whose training has finished, one after another where the job ran, until one
    fails; ``{run}`` is the job's directory."""
    at_end: tuple[str, ...] = ()
    """Commands of ``mythos`` once all jobs have ended, until one fails; ``{runs}`` are the directories of the finished
    jobs in the plan's order, ``{sweep}`` is the sweep's."""

    def __post_init__(self) -> None:
        if self.search is not None and (self.grid or self.jobs):
            num_fixed = len(self.grid) + len(self.jobs)
            raise ValueError(
                f"search is given and so are {num_fixed} entries of grid and jobs; a sweep either searches or lists "
                "its jobs, so remove one of the two."
            )
        if self.search is not None and self.after:
            raise ValueError(
                f"search is given but after holds {len(self.after)} commands; a search only ranks its trials, so "
                "remove after and run the commands on the trials that you keep."
            )
        for command in self.after:
            _check_command("after", command, ("{run}",))
        for command in self.at_end:
            _check_command("at_end", command, ("{runs}", "{sweep}"))


def _check_command(path: str, command: str, placeholders: tuple[str, ...]) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"{path}: {command!r} is not a command line ({error}); close the quotation.") from None
    if not words or words[0] not in _COMMANDS:
        raise ValueError(f"{path}: {command!r} is not understood; begin with one of {', '.join(_COMMANDS)}.")
    unknown = [name for name in re.findall(r"\{[^{}]*\}", command) if name not in placeholders]
    if unknown:
        raise ValueError(
            f"{path}: {command!r} holds {unknown[0]}, but only {' and '.join(placeholders)} can be used here."
        )
    if any("{runs}" in word and word != "{runs}" for word in words):
        raise ValueError(
            f"{path}: {command!r} has {{runs}} inside a word; it stands for several words, so separate it by blanks."
        )
