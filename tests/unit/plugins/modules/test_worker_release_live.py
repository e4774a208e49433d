# SPDX-License-Identifier: GPL-3.0-or-later
"""A real worker under a real supervisord: built from source, switched from 1.2.0 to 1.3.0 and back."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._client import WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile
from ansible_collections.solver.fleet.plugins.module_utils._release_switch import look
from ansible_collections.solver.fleet.plugins.module_utils._service import Service, open_service
from process_kit import await_that, kill_tree
from release_kit import ROOT, lend_pip, make_wheel, run_module, start_module

sys.path.append(str(ROOT / "tests/integration"))
from fleetlib import lend_wheels

pytestmark = pytest.mark.programs

SUPERVISOR = """\
[unix_http_server]
file=%(here)s/s.sock
[supervisord]
nodaemon=true
logfile=%(here)s/supervisord.log
pidfile=%(here)s/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:w1]
command=%(here)s/base/workers/w1/current/env/bin/solver-worker serve
    --config %(here)s/base/workers/w1/current/config.toml
autostart=false
autorestart=unexpected
startsecs=1
startretries=50
stopwaitsecs=45
redirect_stderr=true
stdout_logfile=%(here)s/w1.log
[program:held]
command=sh %(here)s/held.sh
autostart=false
autorestart=unexpected
startsecs=0
stopwaitsecs=45
redirect_stderr=true
stdout_logfile=%(here)s/w1.log
"""
# The same worker, which waits with its end until the test lets it go on.
HELD = """\
cd {folder}
base/workers/w1/current/env/bin/solver-worker serve --config base/workers/w1/current/config.toml & worker=$!
trap 'touch stopping; while [ ! -e go ]; do sleep 0.05; done; kill -TERM $worker; wait $worker; exit 0' TERM
while kill -0 $worker; do wait $worker; done
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.worker_dir = folder / "base" / "workers" / "w1"
        self.worker_dir.mkdir(parents=True)
        self.socket = str(folder / "run" / "w1.sock")
        (folder / "key").write_text("k" * 32)
        self.client = WorkerClient(self.socket)

    def config(self, extra: str = "") -> str:
        return (
            f'[worker]\nname = "w1"\nstate_dir = "{self.worker_dir}/state"\n'
            f'[control]\nsocket = "{self.socket}"\n[data]\nport = {self.port}\n'
            f'[provider]\nurl = "http://127.0.0.1:1"\napi_key_file = "{self.folder}/key"\n{extra}'
        )

    def arguments(self, **more: Any) -> dict[str, Any]:
        return {
            "worker_name": "w1",
            "worker_dir": str(self.worker_dir),
            "base_dir": str(self.folder / "base"),
            "control_socket": self.socket,
            **more,
        }

    def run(self, check_mode: bool = False, **more: Any) -> dict[str, Any]:
        return run_module("worker_release", self.arguments(**more), check_mode)

    def stage(self, version: str, **more: Any) -> dict[str, Any]:
        more.setdefault("config", self.config())
        return self.run(state="staged", version=version, wheelhouse=str(self.folder / "wheels"), **more)

    def service(self, name: str = "w1") -> dict[str, Any]:
        return {"backend": "supervisor", "name": name, "config": str(self.folder / "s.conf"),
                "log_file": str(self.folder / "w1.log")}

    def activate(self, check_mode: bool = False, **more: Any) -> dict[str, Any]:
        return self.run(check_mode, **{"state": "active", "owner": "r1", "service": self.service(), **more})

    def serve(self) -> None:
        """Have the worker up, on 1.2.0 if no test before has put it anywhere: each test may be the first."""
        if not Path(self.socket).exists():
            self.activate(release=self.stage("1.2.0")["release"]["id"])
        await_that(lambda: self.client.status()["state"] in ("running", "drained"))

    def look(self) -> dict[str, Any]:
        """Its process, nothing while there is none."""
        return dict((look(self.client).status or {}).get("instance") or {})

    def drain(self, owner: str = "r1", **more: Any) -> None:
        self.client.put_drain({"owner": owner, "lease_s": 900, **more})
        await_that(lambda: self.client.status()["state"] == "drained")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    site = Site(folder)
    (folder / "s.conf").write_text(SUPERVISOR)
    lend_wheels(folder / "wheels", ["1.2.0", "1.3.0"], {})
    lend_pip(folder / "base")
    with (folder / "out").open("wb") as out:
        supervisord = Path(sys.executable).parent / "supervisord"
        process = subprocess.Popen([supervisord, "-n", "-c", folder / "s.conf"], stdout=out, stderr=out)
    try:
        await_that((folder / "s.sock").exists)
        yield site
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)


def code(result: dict[str, Any]) -> str:
    assert result.get("failed"), result
    return str(result["failure"]["code"])


def test_a_whole_update_and_its_revert(site: Site) -> None:
    old = site.stage("1.2.0")["release"]["id"]
    first = site.activate(release=old)
    assert (first["state_before"], first["switched"], first["restarted"]) == ("stopped", True, True), first
    await_that(lambda: site.client.status()["state"] == "running")
    again = site.activate(release=old)
    assert (again["changed"], again["restarted"], again["running_release"]) == (False, False, old)

    staged = site.stage("1.3.0")
    new = staged["release"]["id"]
    assert (staged["at_target"], staged["running_release"], staged["release"]["from"]) == (False, old, old)
    before = site.client.status()
    assert site.activate(check_mode=True, release=new)["changed"] is True

    # Refused before anything is touched: not drained, another's drain.
    assert code(site.activate(release=new)) == "lease_lost"
    site.drain("someone-else")
    refused = site.activate(release=new)
    assert code(refused) == "foreign_drain"
    assert "'someone-else' holds its drain, not 'r1'" in refused["msg"]
    assert refused["failure"]["details"]["owner"] == "someone-else"
    assert (refused["switched"], refused["current"]) == (False, old)
    site.client.delete_drain("someone-else")
    assert site.client.status()["instance"]["boot_id"] == before["instance"]["boot_id"]

    site.drain()
    moved = site.activate(release=new)
    assert (moved["from"], moved["to"], moved["previous"]) == (old, new, old), moved
    assert moved["boot_id_before"] == before["instance"]["boot_id"]
    assert moved["boot_id"] not in (None, moved["boot_id_before"])
    assert moved["journal_id"] == before["journal"]["id"]
    assert moved["totals_before"]["accepted"] == 0
    await_that(lambda: site.client.status()["state"] == "drained")
    held = site.client.status()
    assert (held["instance"]["version"], held["instance"]["release"]) == ("1.3.0", new)
    assert (held["drain"]["owner"], held["drain"]["on_expire"]) == ("r1", "verify")

    back = site.activate(previous=True)
    assert (back["from"], back["current"], back["previous"]) == (new, old, new), back
    await_that(lambda: site.client.status()["state"] == "drained")
    assert site.client.status()["instance"]["release"] == old
    site.client.delete_drain("r1")
    await_that(lambda: site.client.status()["state"] == "running")


def test_a_moved_link_without_a_restart_is_restarted(site: Site) -> None:
    site.serve()
    site.drain()
    new = site.stage("1.3.0")["release"]["id"]
    assert site.activate(release=new, restart=False)["restarted"] is False
    later = site.activate(release=new)
    assert (later["switched"], later["restarted"]) == (False, True)
    await_that(lambda: site.client.status()["instance"]["release"] == new)
    site.client.delete_drain("r1", steal=True)


def test_a_process_that_crashes_is_told_at_once_and_can_be_reverted(site: Site) -> None:
    site.serve()
    before = site.client.status()["instance"]["release"]
    site.drain(steal=True)
    wheel = make_wheel(site.folder / "crash", "1.3.1", 'if "serve" in sys.argv: sys.exit("it crashes")')
    staged = site.run(state="staged", package=str(wheel), wheelhouse=str(site.folder), config=site.config())
    began = time.monotonic()
    crashed = site.activate(release=staged["release"]["id"])
    assert code(crashed) == "service_failed"
    assert time.monotonic() - began < 15
    assert (crashed["switched"], crashed["restarted"], crashed["previous"]) == (True, True, before)
    assert "it crashes" in crashed["failure"]["details"]["log"]
    back = site.activate(previous=True)
    assert (back["current"], back["restarted"]) == (before, True), back
    await_that(lambda: site.client.status()["instance"]["release"] == before)
    site.client.delete_drain("r1", steal=True)


@pytest.fixture
def held(site: Site) -> Iterator[Service]:
    """The worker as another program, whose end the test holds up."""
    site.serve()
    usual, held = open_service(site.service()), open_service(site.service("held"))
    (site.folder / "held.sh").write_text(HELD.format(folder=site.folder))
    usual.stop()
    held.start()
    await_that(lambda: Path(site.socket).exists() and site.client.status()["state"] in ("running", "drained"))
    yield held
    (site.folder / "go").touch()
    held.stop()
    usual.start()
    site.serve()


def test_the_whole_tree_is_killed_between_stop_and_start(site: Site, held: Service) -> None:
    """Nobody is left who could start the worker, and a worker without a process has no lease that would help it."""
    running = site.client.status()["instance"]["version"]
    new = site.stage("1.2.0" if running == "1.3.0" else "1.3.0")["release"]["id"]
    site.drain(steal=True)
    before = site.client.status()["instance"]["boot_id"]
    module = start_module("worker_release", site.arguments(
        state="active", owner="r1", release=new, service=site.service("held")))
    await_that((site.folder / "stopping").exists)
    kill_tree(module.pid)
    module.wait(30)
    assert held.state().state == "running", "it is still in its stop"
    (site.folder / "go").touch()
    await_that(lambda: site.look().get("boot_id") not in (None, before))
    await_that(lambda: site.client.status()["state"] == "drained")
    now = site.client.status()
    assert now["instance"]["release"] == new
    # From here on only the lease decides, as after any other switch.
    assert (now["drain"]["owner"], now["drain"]["on_expire"]) == ("r1", "verify")
    with RecordFile(str(site.worker_dir)).alone(60.0):
        pass
    site.client.delete_drain("r1")


def test_a_configuration_that_the_worker_refuses_never_gets_staged(site: Site) -> None:
    result = site.stage("1.3.0", config=site.config("colour = 1\n"))
    assert code(result) == "config_refused"
    assert "colour" in result["msg"]
    no_key = site.stage("1.3.0", config=site.config().replace("/key", "/no-key"))
    assert code(no_key) == "config_refused"
    assert "api_key_file" in no_key["msg"]
