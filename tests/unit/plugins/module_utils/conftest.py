# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripted workers on real Unix sockets, and clocks that tests turn by hand."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._wait import Clock

Json = dict[str, Any]
Script = Callable[[socket.socket], None]


class FakeClock(Clock):
    """Time passes only by sleeping, or when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += seconds


class FakeServer:
    """Answers each connection with the next step of its script; the last step is repeated."""

    def __init__(self, path: str, script: list[Script]) -> None:
        self.path = path
        self.script = script
        self.connections = 0
        self.end = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)
        self._listener.settimeout(0.05)
        self._accepter = threading.Thread(target=self._accept, daemon=True)
        self._accepter.start()

    def _accept(self) -> None:
        while not self.end.is_set():
            with contextlib.suppress(TimeoutError):
                connection = self._listener.accept()[0]
                step = self.script[min(self.connections, len(self.script) - 1)]
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(step, connection), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _serve(step: Script, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            step(connection)

    def close(self) -> None:
        self.end.set()
        self._accepter.join(5)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return data


def answer(document: Any, status: int = 200, kind: str = "application/json") -> Script:
    """A well-formed answer."""
    body = json.dumps(document).encode()

    def step(connection: socket.socket) -> None:
        read_request(connection)
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    return step


def raw(data: bytes) -> Script:
    def step(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(data)

    return step


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def serve(run_dir: Path) -> Iterator[Callable[..., FakeServer]]:
    servers: list[FakeServer] = []

    def start(*script: Script) -> FakeServer:
        servers.append(FakeServer(str(run_dir / f"{len(servers)}.sock"), list(script)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def make_status(state: str = "running", **changes: Any) -> Json:
    """A valid status document; C(changes) replace top-level fields."""
    document: Json = {
        "schema": "solver.worker.status/1",
        "api": {
            "versions": ["v1"],
            "features": ["drain.lease", "drain.persist", "probe", "wait", "handover", "verify"],
        },
        "instance": {
            "name": "w1",
            "version": "1.2.0",
            "release": "1.2.0-a-b",
            "boot_id": "boot-1",
            "pid": 7,
            "started_at": "2026-01-01T00:00:00Z",
            "restarts": 0,
        },
        "state": state,
        "since": "2026-01-01T00:00:00Z",
        "seq": 1,
        "accepting": state == "running",
        "safe_to_stop": state == "drained",
        "idle": state != "draining",
        "drain": None,
        "tasks": {"open": 0, "accepted": 0, "submitting": 0, "polling": 0, "unfetched": 0, "oldest_age_s": None},
        "totals": {"accepted": 0, "succeeded": 0, "failed": 0, "uncertain": 0, "expired": 0, "probes": 0},
        "solve_times": {"count": 0, "p50_s": None, "p99_s": None},
        "provider": None,
        "journal": {"id": "j1", "schema": 1, "min_reader": 1, "writable": True},
        "failure": None,
    }
    document.update(changes)
    return document


class Tools:
    """What tests need by name: test modules cannot import a conftest."""

    answer = staticmethod(answer)
    raw = staticmethod(raw)
    read_request = staticmethod(read_request)
    status = staticmethod(make_status)


@pytest.fixture
def tools() -> type[Tools]:
    return Tools
