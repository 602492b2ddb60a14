"""A mirror that stops to answer while a run trains: the run trains on, stops when asked, and its processes end."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from helpers import recorded, wait_until
from moto.server import ThreadedMotoServer
from test_kill import TWO_RANKS, last_step, start

from mythos.config import records
from mythos.config.exit_status import PREEMPTED


class Endpoint:
    """S3 behind a relay that, while it is silent, accepts connections and requests and answers none."""

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.is_silent = False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.server.accept()
            upstream = socket.create_connection(self.target)
            for pair in ((client, upstream), (upstream, client)):
                threading.Thread(target=self.relay, args=pair, daemon=True).start()

    def relay(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(2**16):
                if not self.is_silent:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def storage() -> fsspec.AbstractFileSystem:
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    endpoint = Endpoint(server.get_host_and_port()[1])
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    yield endpoint
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout", [pytest.param([], id="one process"), pytest.param(TWO_RANKS, id="two ranks", marks=pytest.mark.all)]
)
def test_a_run_trains_and_stops_while_its_mirror_is_silent(
    packed: Path, tmp_path: Path, endpoint: Endpoint, layout: list[str]
) -> None:
    files = storage()
    files.mkdir("bucket")
    options = [*layout, "run.checkpoint.copy_to=s3://bucket", "schedule.cooldown_fraction=0", "run.num_steps=100000"]
    run, log = tmp_path / "run", tmp_path / "run.log"
    process = start(packed, tmp_path, "run", *options, "run.checkpoint.copy_stop_seconds=3")
    wait_until(lambda: bool(files.glob("bucket/run/*/manifest.json")) or process.poll() is not None)
    endpoint.is_silent = True
    silent_from = last_step(run)
    wait_until(lambda: last_step(run) >= silent_from + 30 or process.poll() is not None)
    assert process.poll() is None, log.read_text()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == PREEMPTED, log.read_text()
    reached = last_step(run)
    assert f"saved at step {reached} of 100000" in log.read_text()
    assert f"step-{reached:08d} was not copied within" in log.read_text()

    endpoint.is_silent = False
    last = reached + 4
    assert start(packed, tmp_path, "run", *options, f"run.num_steps={last}").wait() == 0, log.read_text()
    files = storage()
    assert sorted(files.glob("bucket/run/*/manifest.json"))[-1] == f"bucket/run/step-{last:08d}/manifest.json"
    assert recorded(run, records.TRAIN_LOSS).keys() == set(range(1, last + 1))
    files.rm("bucket", recursive=True)  # the servers of a process share their buckets
