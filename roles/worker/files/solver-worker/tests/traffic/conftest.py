# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes for the tests: a sandbox, workers, traffic. Each is ended by its own id."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import solver_worker.traffic

SRC = Path(solver_worker.traffic.__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC)}


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


class House:
    """A private directory, and the processes that live in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: list[subprocess.Popen[str]] = []
        self.workers: dict[str, tuple[list[str], str]] = {}

    def start(self, command: list[str], log: str) -> subprocess.Popen[str]:
        with (self.path / log).open("a") as err:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=ENVIRONMENT)
        self.processes.append(process)
        return process

    def sandbox(self, *options: str) -> str:
        command = [sys.executable, "-m", "solver_worker.sandbox", "--ledger-file", str(self.path / "ledger.jsonl")]
        process = self.start([*command, *options], "sandbox.log")
        assert process.stdout is not None
        return str(json.loads(process.stdout.readline())["url"])

    def worker(self, name: str, provider: str) -> subprocess.Popen[str]:
        """The reference worker, the first time or again on the same journal."""
        if name not in self.workers:
            self.workers[name] = self._configure(name, provider)
        command, url = self.workers[name]
        process = self.start(command, f"{name}.log")
        until(lambda: healthy(url) or process.poll() is not None, f"{name} serves")
        assert process.poll() is None, (self.path / f"{name}.log").read_text()
        return process

    def _configure(self, name: str, provider: str) -> tuple[list[str], str]:
        key, port = self.path / "key", free_port()
        key.write_text("k" * 32)
        key.chmod(0o600)
        config = self.path / f"{name}.toml"
        config.write_text(f"""
[worker]
name = "{name}"
state_dir = "{self.path}/{name}"
[control]
socket = "{self.path}/{name}.sock"
[data]
port = {port}
[provider]
url = "{provider}"
api_key_file = "{key}"
first_poll_image_s = 0.2
first_poll_s = 0.2
poll_interval_s = 0.2
""")
        return [sys.executable, "-m", "solver_worker", "serve", "--config", str(config)], f"http://127.0.0.1:{port}"

    def traffic(self, *options: str, journals: bool = True) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "solver_worker.traffic", "run", "--book", str(self.path / "book.jsonl")]
        for name, (_unused, url) in self.workers.items():
            command += ["--worker", f"{name}={url}"]
            if journals:
                command += ["--journal", f"{name}={self.path}/{name}/journal.sqlite3"]
        command += ["--ledger-file", str(self.path / "ledger.jsonl"), "--report", str(self.path / "report.json")]
        return self.start([*command, *options], "traffic.log")

    def accepted(self) -> int:
        book = self.path / "book.jsonl"
        return book.read_text().count('"event": "accepted"') if book.exists() else 0

    def report(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.path / "report.json").read_text())
        return document


@pytest.fixture
def house() -> Iterator[House]:
    path = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    house = House(path)
    try:
        yield house
    finally:
        for process in house.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        shutil.rmtree(path, ignore_errors=True)
