"""Restarts ranks that failed, as long as the run makes progress. No torch in the process that restarts them."""

import signal
import sys
import time
from pathlib import Path

from mythos.checkpoint import store
from mythos.config.exit_status import LOST_PEER, MEANING, PREEMPTED, STALLED
from mythos.config.run import RunConfig
from mythos.data.poison import Witness, failed_step
from mythos.parallel.launcher import launch
from mythos.parallel.stopping import stop_request

MAX_PAUSE_SECONDS = 600.0
_POLL_SECONDS = 0.1
_CRASHES = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS}
"""Signals by which a step can kill its rank; the kernel sends SIGKILL when memory is short."""
_SURVIVAL_SECONDS = 1.0
"""A scheduler that kills a job kills the launcher at the latest so long after a rank."""


def run_with_restarts(config: RunConfig, overrides: list[str], options: list[str]) -> int:
    """Start the ranks of this machine, and restart them after transient failures.

    There are at most ``run.max_restarts`` restarts in a row; a new checkpoint begins a new row.

    Args:
        overrides: Hydra overrides of the command line.
        options: other options of the command line.

    Returns:
        The exit status of the last attempt, or PREEMPTED if a signal arrived between two.
    """
    run, started_at = Path(config.run.dir) / config.run.name, time.monotonic()
    num_restarts, saved = 0, _newest(run)
    while True:
        witness = Witness(run)
        status = launch(config.cluster, ["train", *overrides, *options], started_at)
        if witness.has_failure and (status in (1, STALLED) or status - 128 in _CRASHES):
            time.sleep(_SURVIVAL_SECONDS)
            witness.mark()
        before, saved = saved, _newest(run)
        num_restarts = 0 if (len(saved), saved) > (len(before), before) else num_restarts
        if num_restarts == config.run.max_restarts or not is_transient(status, run):
            return status
        seconds = min(config.run.restart_backoff_seconds * 2**num_restarts, MAX_PAUSE_SECONDS)
        num_restarts += 1
        print(
            f"mythos: the run ended with status {status} ({_in_words(status)}); it restarts in {seconds:g} seconds "
            f"from {saved or 'the beginning'} (restart {num_restarts} of {config.run.max_restarts} without progress).",
            file=sys.stderr,
            flush=True,
        )
        if _is_stopped_within(seconds):
            return PREEMPTED
        if saved or config.resume == "never":
            overrides = [*(one for one in overrides if not one.startswith("resume=")), "resume=auto"]


def is_transient(status: int, run: Path) -> bool:
    """Whether a restart may help: ranks were lost, stalled or killed, or a step raised an error."""
    return status in (LOST_PEER, STALLED) or status > 128 or (status == 1 and failed_step(run) is not None)


def _newest(run: Path) -> str:
    """Name of the newest checkpoint, or an empty string."""
    return next((path.name for path in reversed(store.checkpoints(run / store.FOLDER))), "")


def _in_words(status: int) -> str:
    return f"killed by signal {status - 128}" if status > 128 else MEANING.get(status, "an error within a step")


def _is_stopped_within(seconds: float) -> bool:
    """Wait, and return whether a signal asked to stop meanwhile."""
    deadline = time.monotonic() + seconds
    with stop_request() as request:
        while not request.is_asked and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    return request.is_asked
