import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Thread

import pytest

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.report.serve import HOST, ReportServer, Source

MakeRun = Callable[..., Path]


@pytest.fixture
def directory(make_run: MakeRun) -> Path:
    return make_run(num_steps=50)


@pytest.fixture
def server(directory: Path) -> Iterator[ReportServer]:
    with ReportServer(0, Source([directory])) as serving:
        thread = Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def get(server: ReportServer, path: str, host: str | None = None) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection(*server.server_address)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def record(directory: Path, step: int, loss: float) -> None:
    line = {"step": step, "time": 1.8e9, "tokens": 4096 * step, records.TRAIN_LOSS: loss}
    with (directory / records.FILE_NAME).open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_the_page_is_served_to_this_machine_only(server: ReportServer) -> None:
    answer, text = get(server, "/")
    assert answer.status == 200
    assert "<h1>quickstart-moe</h1>" in text
    assert "connect-src 'self'" in text
    assert server.server_address[0] == HOST == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_address[1]}/"


def test_content_is_sent_only_when_the_metrics_grow(server: ReportServer, directory: Path) -> None:
    first = json.loads(get(server, "/content?version=")[1])
    path = f"/content?version={first['version']}"
    assert get(server, path)[0].status == 204
    record(directory, 60, 1.25)
    second = json.loads(get(server, path)[1])
    assert second["version"] != first["version"]
    assert second["figures"].keys() == first["figures"].keys()
    assert "<dt>Steps of 50</dt><dd>60</dd>" in second["facts"]
    assert "<dt>Steps of 50</dt><dd>50</dd>" in first["facts"]
    assert get(server, f"/content?version={second['version']}")[0].status == 204


def test_the_old_page_is_kept_while_a_file_cannot_be_read(directory: Path) -> None:
    source = Source([directory])
    before = source.latest()
    path = directory / records.FILE_NAME
    text = path.read_text()
    path.write_text("")
    assert source.latest() == before
    path.write_text(text)
    record(directory, 60, 1.25)
    assert source.latest()[0] != before[0]


def test_the_old_page_is_kept_while_the_system_refuses_a_file(directory: Path, monkeypatch) -> None:
    source = Source([directory])
    before = source.latest()
    record(directory, 60, 1.25)

    def refuse(path: Path) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("mythos.report.read.read_regular", refuse)
        assert source.latest() == before
    assert source.latest()[0] != before[0]


def test_a_foreign_host_name_is_refused(server: ReportServer) -> None:
    port = server.server_address[1]
    assert get(server, "/", host=f"attacker.example:{port}")[0].status == 403
    assert get(server, "/", host=f"localhost:{port}")[0].status == 200
    assert get(server, "/etc/passwd")[0].status == 404


def test_a_port_in_use_is_reported_in_one_sentence(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--serve {port}: this port cannot be used .* give another one"):
            ReportServer(port, Source([directory]))
    with pytest.raises(ConfigError, match="--serve 70000: this port cannot be used"):
        ReportServer(70000, Source([directory]))
