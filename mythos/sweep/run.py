"""Run a sweep, from its command line to its table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mythos.config.base import ConfigError
from mythos.config.extras import install_command
from mythos.config.sweep import LocalLauncher, SweepConfig
from mythos.files import open_locked
from mythos.report.jobs import JOB_FILE, PLAN_FILE
from mythos.sweep.at_end import run_at_end
from mythos.sweep.drive import ListedJobs, Queue, drive
from mythos.sweep.local import LocalQueue
from mythos.sweep.plan import SweepPlan, freeze, make
from mythos.sweep.process import arguments_of
from mythos.sweep.table import as_text, read_rows, write_table
from mythos.train.refusal import Before

_GOOD = ("finished", "stopped early")


def run(arguments: list[str], config_dir: Path | None, mistake_in: Callable[[list[str]], str | None]) -> int:
    """Run a sweep, or the rest of it, and print its table.

    Args:
        mistake_in: returns the error in a command line of ``mythos`` without running it, or None.

    Returns:
        0 if each job finished or was stopped early by a search, and the commands at the end did not fail, else 1; 130
        after Ctrl-C.

    Raises:
        ConfigError: before any job has started.
    """
    plan = make(arguments, config_dir)
    _check_commands(plan.sweep, mistake_in)
    with _locked(plan):
        freeze(plan)
        queue = _queue(plan)
        try:
            _drive(plan, queue)
            has_succeeded = run_at_end(plan.directory, plan.sweep.at_end)
        except KeyboardInterrupt:
            show(plan.directory)
            return 130
    return 0 if all(state in _GOOD for state in show(plan.directory)) and has_succeeded else 1


def show(directory: Path) -> list[str]:
    """Print the table, write it as JSON and CSV, and return each job's state.

    Raises:
        ConfigError: the directory is not a sweep.
    """
    rows = read_rows(directory)
    write_table(directory, rows)
    print(as_text(rows))
    print(f"sweep directory: {directory}")
    return [row.state for row in rows]


def _check_commands(sweep: SweepConfig, mistake_in: Callable[[list[str]], str | None]) -> None:
    for key, commands in (("after", sweep.after), ("at_end", sweep.at_end)):
        for command in commands:
            mistake = mistake_in(arguments_of(command, ["RUN"], run="RUN", sweep="SWEEP"))
            if mistake is not None:
                raise ConfigError(f"sweep.{key}: {command!r} would be refused ({mistake}); correct it.")


def _queue(plan: SweepPlan) -> Queue:
    launcher = plan.sweep.launcher
    if isinstance(launcher, LocalLauncher):
        return LocalQueue(launcher, plan.sweep.max_restarts)
    _check_library("submitit")
    from mythos.sweep.slurm import SlurmQueue

    return SlurmQueue(launcher, plan.sweep.max_restarts, plan.directory)


def _drive(plan: SweepPlan, queue: Queue) -> None:
    if plan.sweep.search is None:
        queue.check(list(plan.jobs))
        drive(ListedJobs(plan, queue.running), queue)
        return
    _check_library("optuna")
    from mythos.sweep.search import Search

    search = Search(plan)
    search.take_over(queue)
    drive(search, queue)


def _check_library(name: str) -> None:
    from importlib.util import find_spec

    if find_spec(name) is None:
        raise ConfigError(f"sweep: {name} is not installed; run {install_command('sweep')}.")


@contextmanager
def _locked(plan: SweepPlan) -> Iterator[None]:
    """Lock the sweep's directory: two processes that run it would start each job twice.

    A sweep that is refused by a ConfigError before a job has started leaves nothing behind.

    Raises:
        ConfigError: another process runs this sweep.
    """
    before = Before(plan.directory)
    try:
        plan.directory.mkdir(parents=True, exist_ok=True)
        file = open_locked(plan.directory / f"{PLAN_FILE}.lock")
    except BlockingIOError:
        raise ConfigError(
            f"sweep.name: another process runs {plan.directory}; end it or choose another name."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"run.dir: {plan.directory} cannot be written ({error.strerror}); choose another run.dir."
        ) from None
    with file:
        try:
            yield
        except ConfigError:
            if not any(plan.directory.glob(f"*/{JOB_FILE}")):
                before.restore()
            raise
