"""Run one step of a build: many independent tasks, each of which runs once even if the run is killed between two."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.shards import remove_partial
from data_pipelines.workers import exit_with_parent
from mythos.config.base import ConfigError


class Step(NamedTuple):
    """Runs ``work(output, index)`` for every index below ``num_tasks``; ``work`` must be picklable."""

    name: str
    num_tasks: int
    work: Callable[[Path, int], Ledger]


def run_step(step: Step, output: Path, num_workers: int) -> Ledger:
    """Run the tasks that are not finished and return the sum of all ledgers.

    A task is finished once its ledger is on disk; files that it wrote before may be written again. ``num_workers`` 0
    runs the tasks in this process.

    Raises:
        ConfigError: a worker died.
    """
    output.mkdir(parents=True, exist_ok=True)
    remove_partial(output)
    ledgers = [output / f"{index:05d}.json" for index in range(step.num_tasks)]
    waiting = [index for index, path in enumerate(ledgers) if not path.exists()]
    with tqdm(total=step.num_tasks, initial=step.num_tasks - len(waiting), desc=step.name, unit="shard") as progress:
        if num_workers == 0 or len(waiting) < 2:
            _disable_logging()
            for index in waiting:
                _finish(step.work, output, index)
                progress.update()
        else:
            _run_in_processes(step, output, waiting, num_workers, progress)
    total = Ledger()
    for path in ledgers:
        total.add(Ledger.read(path))
    return total


def _run_in_processes(step: Step, output: Path, waiting: list[int], num_workers: int, progress: "tqdm") -> None:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(num_workers, len(waiting)), context, initializer=_start_worker)
    try:
        for done in as_completed([pool.submit(partial(_finish, step.work, output), index) for index in waiting]):
            done.result()
            progress.update()
    except BrokenProcessPool:
        raise ConfigError(
            f"{step.name}: a worker process died, most likely out of memory; run again with fewer --workers, "
            "finished shards are kept."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(work: Callable[[Path, int], Ledger], output: Path, index: int) -> None:
    work(output, index).write(output / f"{index:05d}.json")


def _start_worker() -> None:
    _disable_logging()
    exit_with_parent()


def _disable_logging() -> None:
    """Disable datatrove's log messages, one for every file that it opens."""
    from loguru import logger

    logger.disable("datatrove")
