"""Ends a process in which nothing moves any more, and says where it stands. No torch unless it is there already.

A thread looks at the time of the last sign of life. It runs while the main thread waits in C with the interpreter's
lock released, as collectives, device waits and file systems do. Where the lock is held, the thread cannot run either:
then a timer of ``faulthandler``, which the thread winds up again and again, prints the stacks from C and ends the
process with status 1.
"""

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from mythos.config.exit_status import STALLED

FOLDER = "logs"
"""Of a run, for what its ranks leave behind."""
_STDERR = 2
_RECORDER_SECONDS = 5.0
"""For the flight recorder, which may wait for the very lock at which the process hangs."""


class Watchdog:
    """Signs of life, and what happens without them. ``seconds=None`` never barks."""

    def __init__(self, logs: Path, seconds: float | None) -> None:
        self.logs = logs
        self.seconds = seconds
        self.rank, self.num_ranks = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        self.main_thread = threading.main_thread()
        self.sign = (time.monotonic(), "before the start")
        """When the last sign of life came, and what was about to be done; replaced as one."""
        self._stopped = threading.Event()

    def beat(self, phase: str) -> None:
        """A sign of life: what came before has ended, ``phase`` begins."""
        self.sign = time.monotonic(), phase

    def wind_up(self) -> None:
        """Set the timer in C, which needs no lock, to the whole time again."""
        assert self.seconds is not None
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=_STDERR)

    def watch(self) -> None:
        """The thread."""
        assert self.seconds is not None
        pause = min(self.seconds / 20, 5.0)
        while not self._stopped.wait(pause):
            self.wind_up()
            since, phase = self.sign
            if time.monotonic() - since > self.seconds:
                self._bark(phase, linger=2 * pause)
        faulthandler.cancel_dump_traceback_later()

    def stop(self) -> None:
        """No signs of life are awaited any more."""
        self._stopped.set()

    def _bark(self, phase: str, linger: float) -> NoReturn:
        """Say where this rank stands, leave the others the time to say it too, and end."""
        self.logs.mkdir(parents=True, exist_ok=True)
        stacks = self.logs / f"rank-{self.rank}.stacks"
        frame = sys._current_frames().get(self.main_thread.ident or 0)
        sentence = (
            f"mythos: rank {self.rank} of {self.num_ranks} on {socket.gethostname()} has not moved for "
            f"{self.seconds:g} seconds: {phase}, {_place(frame)}; its stacks are in {stacks}."
        )
        with stacks.open("w", encoding="utf-8") as file:
            self._write_stacks(file, sentence)
        self._write_stacks(sys.__stderr__, sentence)
        recorder = threading.Thread(target=self._write_collectives, daemon=True)
        recorder.start()
        recorder.join(_RECORDER_SECONDS)
        time.sleep(linger)
        os._exit(STALLED)

    def _write_stacks(self, file: TextIO | None, sentence: str) -> None:
        if file is not None:
            print(sentence, file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)

    def _write_collectives(self) -> None:
        """What torch's flight recorder knows of this rank's last collectives, if it is there and has recorded."""
        recorded = _flight_record()
        if recorded:
            (self.logs / f"rank-{self.rank}.collectives.json").write_bytes(recorded)


@contextmanager
def watched(logs: Path, seconds: float | None) -> Iterator[Watchdog]:
    """Watch this process; SIGQUIT prints the stacks of all its threads, too, and changes nothing else."""
    faulthandler.register(signal.SIGQUIT, file=_STDERR, all_threads=True)
    watchdog = Watchdog(logs, seconds)
    if seconds is None:
        yield watchdog
        return
    watchdog.beat("starting")
    watchdog.wind_up()
    thread = threading.Thread(target=watchdog.watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()
        thread.join()
        faulthandler.unregister(signal.SIGQUIT)


def _place(frame: FrameType | None) -> str:
    """The line at which a thread is, and the nearest one of ours above it, in words."""
    if frame is None:
        return "at an unknown place"
    stack = traceback.extract_stack(frame)
    last = stack[-1]
    text = f"at {last.filename}:{last.lineno} in {last.name} ({last.line})"
    package = str(Path(__file__).parents[1])
    ours = next((one for one in reversed(stack) if one.filename.startswith(package)), last)
    return text if ours is last else f"{text}, called from {ours.filename}:{ours.lineno} in {ours.name}"


def _flight_record() -> bytes | None:
    """JSON of the recorder of NCCL, or of that of gloo; None without torch."""
    if "torch.distributed" not in sys.modules:
        return None
    from torch._C import _distributed_c10d

    names = ("_dump_nccl_trace_json", "_dump_fr_trace_json")
    dump: Any = next((getattr(_distributed_c10d, name) for name in names if hasattr(_distributed_c10d, name)), None)
    return None if dump is None else dump()
