"""Ends a process that makes no progress, and reports its stacks. Does not import torch.

A thread counts its waits since the last heartbeat. It runs while the main thread waits in C with the interpreter lock
released, as collectives, device waits and file systems do. If the lock is held, the thread cannot run either; then a
process of its own, to which the thread writes after every wait, makes this one print its stacks from C and kills it
(``lock_watch``). Waits are counted and not the clock, which continues while a job is suspended.
"""

import faulthandler
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from mythos.config.exit_status import STALLED
from mythos.data.poison import Witness
from mythos.files import open_regular
from mythos.parallel import lock_watch

FOLDER = "logs"
"""Folder of a run for the reports of its ranks."""
_STDERR = 2
_RECORDER_SECONDS = 5.0
"""Time limit of the flight recorder, which may wait for the lock at which the process hangs."""


class Watchdog:
    """Ends the process if it runs for ``seconds`` without a heartbeat; None disables it."""

    def __init__(self, logs: Path, seconds: float | None) -> None:
        self.logs = logs
        self.seconds = seconds
        self.rank, self.num_ranks = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        self.main_thread = threading.main_thread()
        self.last_beat = ["before the start"]
        """The phase that began with the last heartbeat; another object for each."""
        self._witness = Witness(logs.parent)
        self._stopped = threading.Event()

    def beat(self, phase: str) -> None:
        """Record a heartbeat: the previous phase has ended and ``phase`` begins."""
        self.last_beat = [phase]

    def watch(self, pause: float, sign_of_life: Callable[[], None]) -> None:
        """Check heartbeats every ``pause`` seconds until ``stop``; the body of the thread."""
        assert self.seconds is not None
        last, silent_seconds = self.last_beat, 0.0
        while not self._stopped.wait(pause):
            sign_of_life()
            last, silent_seconds = self.last_beat, silent_seconds + pause if self.last_beat is last else 0.0
            if silent_seconds > self.seconds:
                self._end_process(last[0], linger=2 * pause)

    def stop(self) -> None:
        """Stop checking heartbeats."""
        self._stopped.set()

    def _end_process(self, phase: str, linger: float) -> NoReturn:
        """Report this rank's stacks, wait so that other ranks can do the same, and end the process."""
        stacks = self.logs / f"rank-{self.rank}.stacks"
        frame = sys._current_frames().get(self.main_thread.ident or 0)
        sentence = (
            f"mythos: rank {self.rank} of {self.num_ranks} on {socket.gethostname()} has not moved for "
            f"{self.seconds:g} seconds: {phase}, {_location(frame)}; its stacks are in {stacks}."
        )
        self._write_stacks(sys.__stderr__, sentence)
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            with open_regular(stacks, "w") as file:
                self._write_stacks(file, sentence)
        except OSError as error:  # the disk may be why the process hangs
            print(f"mythos: {stacks} cannot be written: {error.strerror}.", file=sys.stderr, flush=True)
        with suppress(OSError):
            self._witness.mark()
        recorder = threading.Thread(target=self._write_collectives, daemon=True)
        recorder.start()
        recorder.join(_RECORDER_SECONDS)
        time.sleep(linger)
        os._exit(STALLED)

    def _write_stacks(self, file: IO[str] | None, sentence: str) -> None:
        if file is not None:
            print(sentence, file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)

    def _write_collectives(self) -> None:
        """Write the last collectives of this rank from torch's flight recorder, if it has recorded any."""
        recorded = _flight_record()
        if recorded:
            with suppress(OSError), open_regular(self.logs / f"rank-{self.rank}.collectives.json", "wb") as file:
                file.write(recorded)


@contextmanager
def watched(logs: Path, seconds: float | None) -> Iterator[Watchdog]:
    """Watch this process; SIGQUIT prints the stacks of all its threads, and changes nothing else."""
    faulthandler.register(signal.SIGQUIT, file=_STDERR, all_threads=True)
    watchdog = Watchdog(logs, seconds)
    if seconds is None:
        yield watchdog
        return
    watchdog.beat("starting")
    pause = min(seconds / 20, 5.0)
    with _lock_watch(seconds, pause) as sign_of_life:
        thread = threading.Thread(target=watchdog.watch, args=(pause, sign_of_life), name="watchdog", daemon=True)
        thread.start()
        try:
            yield watchdog
        finally:
            watchdog.stop()
            thread.join()
            faulthandler.unregister(signal.SIGQUIT)


@contextmanager
def _lock_watch(seconds: float, pause: float) -> Iterator[Callable[[], None]]:
    """Run ``lock_watch`` for this process; yields the function that must be called at least every ``seconds``."""
    command = [sys.executable, "-I", "-S", lock_watch.__file__, str(os.getpid()), str(seconds), str(pause)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as watch:
        assert watch.stdin is not None
        stdin = watch.stdin

        def sign_of_life() -> None:
            with suppress(BrokenPipeError):  # somebody has killed it
                stdin.write(b".")

        try:
            yield sign_of_life
        finally:
            watch.kill()  # a process that was forked meanwhile may hold its input open


def _location(frame: FrameType | None) -> str:
    """Describe the current line of a thread, and the nearest calling line of this package."""
    if frame is None:
        return "at an unknown line"
    stack = traceback.extract_stack(frame)
    last = stack[-1]
    text = f"at {last.filename}:{last.lineno} in {last.name} ({last.line})"
    package = str(Path(__file__).parents[1])
    ours = next((entry for entry in reversed(stack) if entry.filename.startswith(package)), last)
    return text if ours is last else f"{text}, called from {ours.filename}:{ours.lineno} in {ours.name}"


def _flight_record() -> bytes | None:
    """Return the JSON of the flight recorder of NCCL or gloo; None without torch."""
    if "torch.distributed" not in sys.modules:
        return None
    from torch._C import _distributed_c10d

    names = ("_dump_nccl_trace_json", "_dump_fr_trace_json")
    dump: Any = next((getattr(_distributed_c10d, name) for name in names if hasattr(_distributed_c10d, name)), None)
    return None if dump is None else dump()
