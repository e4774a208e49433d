# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox as a program: ready line, files, signals, bad options."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import solver_worker.sandbox

SRC = Path(solver_worker.sandbox.__file__).parents[2]
COMMAND = [sys.executable, "-m", "solver_worker.sandbox"]


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SRC)}
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        yield process, ready["url"]
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_ready_line_pid_file_and_a_prompt_end(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with running("--pid-file", str(pid_file), "--submit-latency", "30") as (process, url):
        assert pid_file.read_text() == f"{process.pid}\n"
        with urllib.request.urlopen(f"{url}/__health", timeout=5) as reply:
            assert json.load(reply) == {"ok": True}
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
        assert time.monotonic() - began < 3
    assert not pid_file.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--host: 0.0.0.0 is not a loopback address"),
        (["--host", "example.test"], "--host: 'example.test' is not an address"),
        (["--solve", "base64=9:1"], "--solve base64=9:1: expected METHOD=MIN:MAX"),
        (["--balance", "much"], "--balance: expected an amount"),
        (["--key-file", "/nonexistent/key"], "--key-file: cannot read /nonexistent/key"),
        (["--faults", "/nonexistent/f"], "--faults: cannot read /nonexistent/f"),
        (["--port", "70000"], "--port: must be 0 to 65535"),
    ],
)
def test_bad_options_are_named(options: list[str], message: str) -> None:
    done = subprocess.run(
        [*COMMAND, *options],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"solver-worker sandbox: {message}")
