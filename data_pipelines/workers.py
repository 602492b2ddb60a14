"""Tie worker processes to the process that started them."""

import multiprocessing
import os
import threading


def exit_with_parent() -> None:
    """Let this worker exit once the process that started it is gone, even killed, since nobody collects its results."""
    threading.Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
