"""The mirror at the start of a run: it must answer in time, and a signal ends the wait for it. No torch."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from mythos.checkpoint.deadline import Stopped
from mythos.checkpoint.mirror import Mirror, mirror_of
from mythos.config.exit_status import Preempted
from mythos.config.run import RunSettings
from mythos.parallel.stopping import stop_request


@contextmanager
def asked_mirror(settings: RunSettings) -> Iterator[Mirror | None]:
    """Yield the run's mirror, whose requests in the block end in time; None without one.

    Raises:
        Preempted: SIGTERM or SIGUSR1 arrived meanwhile; nothing has been trained that could be saved.
    """
    mirror = mirror_of(settings)
    if mirror is None:
        yield None
        return
    with ExitStack() as stack:
        is_main = threading.current_thread() is threading.main_thread()  # no other thread receives signals
        request = stack.enter_context(stop_request()) if is_main else None
        stack.enter_context(
            mirror.within(settings.checkpoint.copy_timeout_seconds, lambda: request is not None and request.is_asked)
        )
        with suppress(Stopped):
            yield mirror
        if request is not None and request.is_asked:
            raise Preempted(
                f"SIGTERM or SIGUSR1 while {mirror.url} was read: ended before the first step; the same command starts "
                "it again."
            )
