# SPDX-License-Identifier: GPL-3.0-or-later
"""One local fleet for many tests: set up once by its playbook, and put back to how it was before each test.

Setting a fleet up takes most of a minute, which dozens of tests would spend again and again on what none of them is
about.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetlib import SANDBOX, Fleet, control, lend_wheels, wait_for

RELEASES = ("solver_local_fleet_versions", "solver_local_fleet_overlays")
START = """
import sys, xmlrpc.client
from supervisor.xmlrpc import Faults, SupervisorTransport
proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=SupervisorTransport(None, None, sys.argv[1]))
for name in sys.argv[2:]:
    try:
        proxy.supervisor.startProcess(name, False)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != Faults.ALREADY_STARTED:
            raise
"""


class Pool:
    """A fleet in a folder, and a copy of what a test may change in it."""

    def __init__(self, folder: Path, size: int, **defaults: Any) -> None:
        """SIZE is enough for most tests; each gets the first few of these workers, and knows of no others."""
        self.fleet = Fleet(folder)
        self.size = size
        self.saved = folder.with_name(folder.name + ".saved")
        self.defaults = defaults
        self.variables: dict[str, Any] | None = None
        self.names: set[str] = set()

    def get(self, size: int, **variables: Any) -> Fleet:
        """Return a fleet of new workers, as the playbook leaves it."""
        sandbox = variables.pop("solver_local_fleet_sandbox", SANDBOX)
        wanted = {**self.defaults, **variables}
        if size > len(self.saved_workers()) or wanted != self.variables or self._ctl("pid").returncode != 0:
            self._set_up(size if variables else max(size, self.size), wanted)
        self._reset(size, sandbox)
        return self.fleet

    def saved_workers(self) -> list[Path]:
        return list((self.saved / "workers").iterdir()) if self.saved.exists() else []

    def rest(self) -> None:
        """End what a test began; the fleet is left standing still."""
        self.fleet.end_runs()
        self.fleet.end_traffic_process()
        self._ctl("stop", "all")

    def close(self) -> None:
        self.variables = None
        done = self.fleet.down()
        shutil.rmtree(self.saved, ignore_errors=True)
        assert done.returncode == 0, done.stdout

    def _set_up(self, size: int, variables: dict[str, Any]) -> None:
        self.variables = None
        done = self.fleet.down()
        assert done.returncode == 0, done.stdout
        releases = [variables[name] for name in RELEASES]
        if releases == [self.defaults[name] for name in RELEASES]:
            lend_wheels(self.fleet.dir / "wheelhouse", *releases)
        self.fleet.up(size, **variables)
        assert self._ctl("stop", "all").returncode == 0
        shutil.rmtree(self.saved, ignore_errors=True)
        self.saved.mkdir()
        for name in ("workers", "releases"):
            shutil.copytree(self.fleet.dir / "fleet" / name, self.saved / name, symlinks=True)
        for name in ("inventory.yml", "supervisor/programs/sandbox.conf"):
            shutil.copy2(self.fleet.dir / name, self.saved / Path(name).name)
        self.names = {path.name for path in self.fleet.dir.iterdir()} - {"ledger.jsonl", "verdict.json"}
        self.variables = variables

    def _reset(self, size: int, sandbox: list[str]) -> None:
        folder, workers = self.fleet.dir, [f"w{number}" for number in range(1, size + 1)]
        assert self._ctl("stop", "all").returncode == 0
        for path in folder.iterdir():
            if path.name not in self.names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("workers", "releases"):
            # A module of a controller that was killed may still be at work there.
            wait_for(lambda path=folder / "fleet" / name: _removed(path), f"an empty {name}")
            shutil.copytree(self.saved / name, folder / "fleet" / name, symlinks=True)
        self._leave_only(workers)
        conf = folder / "supervisor/programs/sandbox.conf"
        text = (self.saved / conf.name).read_text(encoding="utf-8")
        before, after = (" ".join(shlex.quote(word) for word in words) for words in (SANDBOX, sandbox))
        assert before in text, text
        conf.write_text(text.replace(before, after), encoding="utf-8")
        assert self._ctl("update", "sandbox").returncode == 0
        self._start("sandbox", *workers)
        wait_for(lambda: all(_state(self.fleet.socket(name)) == "running" for name in workers), "all to serve")
        wait_for(lambda: _listens(self.fleet.hosts()["w1"]["solver_provider_url"]), "the sandbox to listen")

    def _leave_only(self, workers: list[str]) -> None:
        """Let the test know of so many workers and of no others: in the inventory, and in the workers' own records."""
        lines = (self.saved / "inventory.yml").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("    ") or line.strip().partition(":")[0] in workers]
        self.fleet.inventory.write_text("".join(kept), encoding="utf-8")
        for path in (self.fleet.dir / "fleet/workers").iterdir():
            record = path / "rollout/record.json"
            if path.name not in workers:
                shutil.rmtree(path)
            elif record.exists():
                document = json.loads(record.read_text(encoding="utf-8"))
                record.write_text(json.dumps({**document, "roster": workers}), encoding="utf-8")

    def _start(self, *names: str) -> None:
        subprocess.run([str(self.fleet.dir / "tools/bin/python"), "-c", START, self._socket(), *names], check=True)

    def _socket(self) -> str:
        return f"unix://{self.fleet.hosts()['w1']['solver_service']['socket']}"

    def _ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        if not self.fleet.inventory.exists():
            return subprocess.CompletedProcess([], 1, "", "there is no fleet")
        command = [str(self.fleet.dir / "tools/bin/supervisorctl"), "--serverurl", self._socket(), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def _removed(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def _state(path: str) -> str:
    try:
        return str(control(path)[1]["state"])
    except OSError:
        return ""


def _listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), 1).close()
    except OSError:
        return False
    return True
