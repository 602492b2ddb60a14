"""Serves the report to this machine during training, and rebuilds it when the metrics grow."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Final
from urllib.parse import parse_qs, urlsplit

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.report.content import Content, figures_as_json
from mythos.report.jobs import JOB_FILE, is_sweep
from mythos.report.page import read_content, render

HOST: Final = "127.0.0.1"
_WATCHED: Final = ("config.json", records.FILE_NAME, records.TRACE_FILE_NAME, JOB_FILE)


class Source:
    """The content of the page, read again when a file of its runs has changed."""

    def __init__(self, directories: Sequence[Path], is_sweep: bool = False) -> None:
        self._directories = directories
        self._is_sweep = is_sweep
        self._lock = Lock()
        self._seen = self._state_of_files()
        self._content = read_content(directories, is_sweep)

    def latest(self) -> tuple[str, Content]:
        """The current version and its content; the previous ones while a file cannot be read."""
        with self._lock:
            try:
                state = self._state_of_files()
                if state != self._seen:
                    self._content = read_content(self._directories, self._is_sweep)
                    self._seen = state
            except (ConfigError, OSError):  # a file is being replaced; the next request will find it whole
                pass
            return self._seen, self._content

    def _state_of_files(self) -> str:
        """Text that changes when a watched file grows or is replaced."""
        states = []
        for directory in self._directories:
            runs = sorted(directory.glob("*/")) if is_sweep(directory) else [directory]
            for path in (run / name for run in runs for name in _WATCHED):
                if path.is_file():
                    status = path.stat()
                    states.append(f"{status.st_size:x}.{status.st_mtime_ns:x}")
        return "-".join(states)


class ReportServer(ThreadingHTTPServer):
    """``/`` is the page, ``/content?version=`` its newer content or 204. Only this machine can connect."""

    daemon_threads = True

    def __init__(self, port: int, source: Source) -> None:
        self.source = source
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--serve {port}: this port cannot be used ({error}); give another one, or 0 for any that is free."
            ) from None

    @property
    def address(self) -> str:
        """The URL of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        """Answer with the page or with its newer content."""
        parts = urlsplit(self.path)
        # DNS rebinding: a site that has pointed its own name at this machine sends that name as Host.
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif parts.path == "/":
            version, content = self.server.source.latest()
            self._answer("text/html; charset=utf-8", render(content, version))
        elif parts.path == "/content":
            version, content = self.server.source.latest()
            if parse_qs(parts.query).get("version") == [version]:
                self.send_response(HTTPStatus.NO_CONTENT)
                self.end_headers()
            else:
                self._answer("application/json", _as_json(version, content))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: object) -> None:
        """Do not log single requests."""

    def _answer(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the reader has closed the page
            self.close_connection = True


def _as_json(version: str, content: Content) -> str:
    """The data that updates an open page to this version."""
    texts = {
        "version": version,
        "facts": content.facts,
        "sections": content.sections,
        "last_update": content.last_update,
    }
    return f'{json.dumps(texts)[:-1]}, "figures": {figures_as_json(content)}}}'
