# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_info, worker_drain and solve_check, run by Ansible, against a real worker and a real sandbox."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fleetlib import ROOT, ansible_bin, wait_for

SOURCE = ROOT / "roles/worker/files/solver-worker/src"
SOLVE_S = 4
CONFIG = """
[worker]
name = "w1"
state_dir = "{dir}/state"
[control]
socket = "{dir}/r/w1.sock"
[data]
port = {port}
[provider]
url = "{url}"
api_key_file = "{dir}/key"
first_poll_image_s = 0.2
first_poll_s = 0.2
poll_interval_s = 0.2
"""


class Bench:
    """One sandbox, one worker, and the modules that look at it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.dir = folder
        self.stack = stack
        self.socket = str(folder / "r" / "w1.sock")
        (folder / "key").write_text("k" * 32)
        sandbox = self.spawn("sandbox", "--solve", f"default={SOLVE_S}:{SOLVE_S}", "--solve", "base64=1:1")
        assert sandbox.stdout is not None
        self.url = json.loads(sandbox.stdout.readline())["url"]
        self.port = free_port()
        (folder / "w1.toml").write_text(CONFIG.format(dir=folder, port=self.port, url=self.url))
        self.worker = self.start()

    def spawn(self, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "solver_worker", *args],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.stack.callback(end, process)
        return process

    def start(self) -> subprocess.Popen[str]:
        process = self.spawn("serve", "--config", str(self.dir / "w1.toml"))
        wait_for(lambda: Path(self.socket).exists() and self.finding() == "answering", "the worker")
        return process

    def finding(self) -> Any:
        return self.run("worker_info")["finding"]

    def run(self, module: str, *, check: bool = False, **args: Any) -> dict[str, Any]:
        args = {"control_socket": self.socket, **args}
        args = {name: value for name, value in args.items() if value is not None}
        done = subprocess.run(
            [
                ansible_bin() / "ansible",
                "localhost",
                "-i",
                "localhost,",
                "-c",
                "local",
                "-m",
                f"solver.fleet.{module}",
                "-a",
                json.dumps(args),
                "-e",
                f"ansible_python_interpreter={sys.executable}",
                *(["-C"] if check else []),
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "=> {" in done.stdout, done.stderr
        start = done.stdout.index("=> {") + 3
        result = json.loads(done.stdout[start:])
        assert isinstance(result, dict)
        return result

    def faults(self, *faults: dict[str, Any]) -> None:
        """Make these the provider's faults, in place of those before."""
        for method, body in (("DELETE", None), ("POST", json.dumps(faults).encode())):
            request = urllib.request.Request(self.url + "/__faults", body, {"Content-Type": "application/json"},
                                             method=method)
            urllib.request.urlopen(request, timeout=10).close()

    def submit(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            body = json.dumps({"method": "userrecaptcha", "googlekey": f"g{number}", "pageurl": "https://x.invalid/"})
            connection.request(
                "POST", "/v1/tasks", body, {"Content-Type": "application/json", "Idempotency-Key": f"k{number}"}
            )
            assert connection.getresponse().status == 202
            connection.close()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture
def bench() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Bench(folder, stack)


@pytest.mark.quick
def test_a_drain_from_end_to_end(bench: Bench) -> None:
    bench.faults({"on": "res", "fault": "CAPCHA_NOT_READY", "times": None})  # none is solved before its drain begins
    bench.submit(12)
    predicted = bench.run("worker_drain", check=True, owner="me", grace=0)
    assert (predicted["changed"], predicted["worker"]["state"]) == (True, "running")
    begun = bench.run("worker_drain", owner="me", grace=0, wait_slice=0, reason="update")
    assert (begun["changed"], begun["done"], begun["open_at_drain"]) == (True, False, 12)
    refused = bench.run("worker_drain", owner="other")
    assert (refused["failure"]["code"], refused["failure"]["details"]["owner"]) == ("foreign_drain", "me")
    assert "(update)" in refused["msg"]
    bench.faults()
    done = bench.run("worker_drain", owner="me", grace=0)
    assert (done["changed"], done["done"], done["remaining"]["open"]) == (False, True, 0)
    assert done["worker"]["safe_to_stop"] is True
    again = bench.run("worker_drain", check=True, owner="me", grace=0)
    assert (again["changed"], again["done"]) == (False, True)
    verify = bench.run("solve_check", checks=["worker"], expect_state=["drained"], totals_before={"accepted": 12})
    assert verify["done"] is True
    assert [bench.run("worker_drain", owner="me", state="active")["changed"] for _call in range(2)] == [True, False]


@pytest.mark.quick
def test_a_missed_deadline_returns_or_hands_over(bench: Bench) -> None:
    bench.faults({"on": "res", "fault": "CAPCHA_NOT_READY", "times": None})  # however slow the modules are here
    bench.submit(5)
    late = bench.run("worker_drain", owner="me", grace=0, timeout=1)
    assert (late["failure"]["code"], late["gave_back"], late["remaining"]["open"]) == ("drain_timeout", True, 5)
    assert bench.run("worker_info")["worker"]["state"] == "running"
    bench.submit(5, first=5)
    passed_on = bench.run("worker_drain", owner="me", grace=0, timeout=1, on_timeout="handover")
    assert (passed_on["done"], passed_on["fallback"]) == (True, True)
    assert passed_on["remaining"]["open"] >= 5


def test_each_way_of_not_answering(bench: Bench) -> None:
    os.kill(bench.worker.pid, signal.SIGSTOP)
    try:
        assert bench.run("worker_info", control_timeout=1)["finding"] == "hung"
    finally:
        os.kill(bench.worker.pid, signal.SIGCONT)
    bench.worker.kill()
    bench.worker.wait(5)
    assert bench.run("worker_info")["finding"] == "dead"
    drained = bench.run("worker_drain", owner="me", absent_ok=True)
    assert (drained["done"], drained["changed"], drained["worker"]) == (True, False, None)
    Path(bench.socket).unlink()
    assert bench.run("worker_info")["finding"] == "stopped"
    assert bench.run("worker_drain", owner="me")["failure"]["code"] == "stopped"
    bad = bench.run("worker_info", control_socket="/tmp/" + "x" * 103)
    assert "control_socket is 108 bytes long" in bad["msg"]


@pytest.mark.quick
def test_a_restart_is_verified_by_a_real_solve(bench: Bench) -> None:
    before = bench.run("worker_drain", owner="me", grace=0)
    old = before["worker"]["instance"]["boot_id"]
    end(bench.worker)
    bench.worker = bench.start()
    checked = {
        "expect_boot_id_not": old,
        "totals_before": before["worker"]["totals"],
        "request_id": "r1",
        "since": before["host_clock"],
    }
    early = bench.run("solve_check", wait_slice=0, **checked)
    assert (early["done"], early["pending"]) == (False, "probe 1 of 3 is not answered yet")
    verify = bench.run("solve_check", **checked)
    assert (verify["done"], verify["passed"], verify["probe"]["outcome"]) == (True, ["worker", "probe"], "succeeded")
    assert verify["worker"]["totals"]["provider_submits"] == 1
    wrong = bench.run("solve_check", **checked, expect_version="0.0.0")
    assert (wrong["failure"]["code"], wrong["failure"]["details"]["fault"]) == ("wrong_version", "worker")
    assert bench.run("worker_drain", owner="me", state="active")["worker"]["state"] == "running"


def test_the_provider_without_a_worker(bench: Bench) -> None:
    checks = {"control_socket": None, "provider_url": bench.url, "api_key_file": str(bench.dir / "key")}
    good = bench.run("solve_check", checks=["balance", "provider"], **checks)
    assert (good["done"], good["passed"]) == (True, ["balance", "provider"])
    poor = bench.run("solve_check", checks=["balance"], min_balance=1e6, **checks)
    assert (poor["failure"]["code"], poor["failure"]["details"]["fault"]) == ("low_balance", "account")
    away = bench.run("solve_check", checks=["balance"], **{**checks, "provider_url": f"http://127.0.0.1:{free_port()}"})
    assert (away["failure"]["code"], away["failure"]["details"]["fault"]) == ("provider_unreachable", "network")
    (bench.dir / "key").write_text("short")
    refused = bench.run("solve_check", checks=["balance"], **checks)
    assert (refused["failure"]["code"], refused["failure"]["details"]["fault"]) == ("balance_failed", "account")
