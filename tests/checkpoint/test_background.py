from threading import Event

import pytest

from mythos.checkpoint.background import BackgroundWriter


def test_the_caller_continues_and_saves_do_not_overlap() -> None:
    writer, release, order = BackgroundWriter(), Event(), []

    def first() -> None:
        release.wait()
        order.append("first")

    writer.submit(first)
    order.append("caller")
    release.set()
    writer.submit(lambda: order.append("second"))
    writer.wait()
    assert order == ["caller", "first", "second"]


@pytest.mark.parametrize("method", ["submit", "wait"])
def test_an_error_reaches_the_caller_once(method: str) -> None:
    writer, done = BackgroundWriter(), []

    def fail() -> None:
        raise OSError("disk full")

    writer.submit(fail)
    with pytest.raises(OSError, match="disk full"):
        writer.wait() if method == "wait" else writer.submit(lambda: done.append("never"))
    assert done == []
    writer.submit(lambda: done.append("after"))
    writer.wait()
    writer.wait()
    assert done == ["after"]
