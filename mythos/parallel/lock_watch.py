"""Kills a process whose interpreter lock is held too long. Runs as a program of its own, on nothing but the library.

The watched process writes to the standard input of this one while any of its threads can take the lock. Time is counted
in waits of this process, not by the clock, and not while the watched process is stopped: a job that is suspended, with
or without this process, continues as if no time had passed.
"""

import os
import select
import signal
import sys
import time
from pathlib import Path

_STDIN = 0
_STACKS_SECONDS = 1.0
"""Time for the process to print its stacks before it is killed."""


def main(pid: int, seconds: float, pause: float) -> None:
    """Watch the parent ``pid`` until it ends; kill it if it does not write for ``seconds``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # sent to all processes of a job; this one ends with the one it watches
    silent_seconds = 0.0
    while os.getppid() == pid:
        if select.select([_STDIN], [], [], pause)[0]:
            if not os.read(_STDIN, 4096):
                return
            silent_seconds = 0.0
        elif not _is_stopped(pid):
            silent_seconds += pause
        if silent_seconds > seconds:
            print(f"mythos: process {pid} has held its interpreter lock for {seconds:g} seconds.", file=sys.stderr)
            os.kill(pid, signal.SIGQUIT)
            time.sleep(_STACKS_SECONDS)
            os.kill(pid, signal.SIGKILL)
            return


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or a debugger; unknown is no, where there is no ``/proc``."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "tT"
    except OSError:
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
