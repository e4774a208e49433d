# SPDX-License-Identifier: GPL-3.0-or-later
"""The standby slot of a worker, through the collection's client and the backend `command`."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ansible_collections.solver.fleet.plugins.module_utils._census import census
from ansible_collections.solver.fleet.plugins.module_utils._client import ApiProblem, WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._service import open_service
from ansible_collections.solver.fleet.plugins.module_utils._standby import Standby, StandbyOptions
from harness import Worker, World

pytestmark = pytest.mark.quick

# The commands of an operator: start in the background, stop by SIGTERM, ask by the exit status.
CONTROL = """
import os, signal, subprocess, sys, time
verb, folder, *command = sys.argv[1:]
pid_file = folder + "/standby.pid"
def pid():
    try:
        return int(open(pid_file).read())
    except (OSError, ValueError):
        return 0
def runs():
    try:
        return bool(pid()) and open(f"/proc/{pid()}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
if verb == "start":
    made = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=open(folder + "/standby.log", "ab"), start_new_session=True)
    open(pid_file, "w").write(str(made.pid))
elif verb == "stop" and runs():
    os.kill(pid(), signal.SIGTERM)
    while runs():
        time.sleep(0.05)
elif verb == "status":
    print("pid", pid())
    sys.exit(0 if runs() else 3)
"""


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    home = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    world = World(home)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        world.http = http
        world.sandbox("--solve", "default=0.1:0.1")
        made = await world.worker().start()
        try:
            yield made
        finally:
            await asyncio.to_thread(slot(made).service.stop)
            world.end()
            shutil.rmtree(home)


def slot(worker: Worker, owner: str = "rollout-1", version: str = "9.0.0", **more: Any) -> Standby:
    order = str(worker.home / "order.json")
    serve = worker.command("serve", "--standby", order, "--config", str(worker.config))
    environment = ["/usr/bin/env", f"PYTHONPATH={Path(sys.modules['harness'].__file__ or '').parents[1] / 'src'}",
                   f"SF_VERSION={version}"]
    commands = {verb: [sys.executable, "-c", CONTROL, verb, str(worker.home)] for verb in ("start", "stop", "status")}
    commands["start"] += environment + serve
    service = open_service({"backend": "command", "name": "w1-standby", "log_file": str(worker.home / "standby.log"),
                            **commands})
    return Standby(StandbyOptions(control_socket=str(worker.socket), standby_socket=str(worker.home / "s.sock"),
                                  order=order, owner=owner, **more), service)


async def test_a_slot_is_raised_verified_taken_over_and_free_again(worker: Worker) -> None:
    standby = slot(worker)
    assert standby.status() is None
    assert await asyncio.to_thread(standby.down) is False
    found = await asyncio.to_thread(standby.up)
    assert (found["state"], found["instance"]["version"]) == ("standby", "9.0.0")
    again = await asyncio.to_thread(standby.up)
    assert again["instance"]["boot_id"] == found["instance"]["boot_id"]
    seen = census(str(worker.socket), 5.0, standby_socket=str(worker.home / "s.sock"))
    assert (seen["finding"], seen["worker"]["state"]) == ("answering", "running")
    assert seen["standby"]["message"] == "worker 'w1' is standby, version 9.0.0"
    with pytest.raises(ApiProblem, match="has not solved a probe here") as refused:
        await asyncio.to_thread(standby.take_over, 10)
    assert refused.value.code == "unverified"
    with pytest.raises(ApiProblem, match="rollout-1 has this worker"):
        await asyncio.to_thread(slot(worker, "rollout-2").up)
    assert (await asyncio.to_thread(standby.client.probe, {"request_id": "r"}))["outcome"] == "succeeded"
    status = await asyncio.to_thread(standby.take_over, 20)
    assert (status["state"], status["instance"]["boot_id"]) == ("running", found["instance"]["boot_id"])
    assert standby.worker.status()["instance"]["version"] == "9.0.0"
    assert standby.status() is None
    seen = census(str(worker.socket), 5.0, standby_socket=str(worker.home / "s.sock"))
    assert (seen["worker"]["instance"]["version"], seen["standby"]["finding"]) == ("9.0.0", "stopped")


async def test_a_standby_is_dropped_and_the_worker_never_touched(worker: Worker) -> None:
    before = await worker.status()
    standby = slot(worker)
    await asyncio.to_thread(standby.up)
    assert await asyncio.to_thread(standby.down) is True
    assert standby.service.state().state == "stopped"
    now = await worker.status()
    assert (now["seq"], now["totals"]) == (before["seq"], before["totals"])


async def test_one_that_does_not_come_up_says_so_with_its_log(worker: Worker) -> None:
    worker.config.write_text(worker.config.read_text() + "\n[colour]\n")
    with pytest.raises(WorkerError, match=r"the standby ended: .*colour"):
        await asyncio.to_thread(slot(worker).up)


async def test_the_answer_that_was_lost_is_found_on_the_workers_own_socket(worker: Worker) -> None:
    standby = slot(worker, control_timeout=5.0)
    await asyncio.to_thread(standby.up)
    standby.client.probe({"request_id": "r"})
    done = standby.client.take_over

    def lost(owner: str, within: float) -> Any:
        done(owner, within)
        return done(owner, within)

    standby.client.take_over = lost  # type: ignore[method-assign]
    assert (await asyncio.to_thread(standby.take_over, 20))["state"] == "running"
