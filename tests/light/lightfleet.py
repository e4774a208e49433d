# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets of light workers: set up in a second, with faults that a test switches on and off, and an exact log.

    fleet = LightFleet(folder).up(4, drain_s=(0.2, 0.6))
    fleet.set_fault(version="1.3.0", probe="release")
    fleet.roll("1.3.0")
    assert fleet.most_out_at_once() == 1
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._files import sha256_file, switch_link
from ansible_collections.solver.fleet.plugins.module_utils._release import SCHEMA, Base, Content, Package, release_id
from ansible_collections.solver.fleet.plugins.module_utils._release_stage import Stage, Target
from ansible_collections.solver.fleet.plugins.plugin_utils import _settings_rules, _toml
from fleetlib import SOURCE, Fleet, ansible_bin
from wheels import write_wheel

HERE = Path(__file__).resolve().parent
VERSIONS = ("1.2.0", "1.3.0", "1.4.0")
FIRST_PORT = 20_000
# Releases of a worker of this name keep environments from being pruned while no fleet uses them.
KEEPER = "keeper"
QUICK: dict[str, Any] = {
    "solver_offline": True, "solver_drain_grace": 0, "solver_drain_timeout": 20, "solver_min_healthy_time": 0,
    "solver_deploy_timeout": 60, "solver_healthy_deadline": 20, "solver_probe_timeout": 5, "solver_probe_interval": 0.2,
    "solver_probe_retries": 2, "solver_progress_deadline": 120, "solver_order": "name",
}


class LightFleet(Fleet):
    """A folder holds one fleet at a time; what was built in it serves the next one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.resolve())
        self.base = Base(str(self.dir / "base"))
        self.wheelhouse = self.dir / "base/wheelhouse"
        self.python = str(ansible_bin() / "python")
        self.vars: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None
        self._hosts: dict[str, dict[str, Any]] = {}
        self._run_dir = self.dir / "run"

    # -- up and down

    def up(self, size: int = 4, version: str = "1.2.0", *, drain_s: float | tuple[float, float] = 0.2,
           load: int = 5, seed: int = 1, versions: Iterable[str] = VERSIONS, **settings: Any) -> LightFleet:
        """Start SIZE workers on VERSION, each with LOAD open tasks that need DRAIN_S to end (a pair: drawn by SEED)."""
        self.down()
        self._clear()
        for each in {version, *versions}:
            self.add_release(each)
        # Not below the folder: a socket's path must be short.
        self._run_dir = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
        self.vars = {
            **QUICK, "ansible_connection": "local", "ansible_python_interpreter": self.python,
            "solver_base_dir": self.base.path, "solver_wheelhouse": str(self.wheelhouse),
            "solver_service_backend": "command", "solver_provider_url": "http://127.0.0.1:9",
            "solver_verdict_file": str(self.dir / "verdict.json"), **settings,
        }
        self._hosts = {f"w{number}": self._host(number) for number in range(1, size + 1)}
        self.write_inventory("inventory.yml")
        self.link(version, *self._hosts)
        self._start([self._spec(name, drain_s, load, seed) for name in self._hosts])
        return self

    def down(self, purge: bool = False) -> Any:
        self.end_runs()
        errors = ""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # it ends with its input
            self._process.wait(30)
            self._process = None
            errors = (self.dir / "light.log").read_text(encoding="utf-8")
        shutil.rmtree(self._run_dir, ignore_errors=True)  # also of a fleet that never came up
        if purge:
            shutil.rmtree(self.dir, ignore_errors=True)
        assert not errors, errors

    def add_release(self, version: str, **answer: Any) -> None:
        """Have VERSION in the wheelhouse; its program's `check` says ANSWER, by default that all is well."""
        self.wheelhouse.mkdir(parents=True, exist_ok=True)
        path = write_wheel(self.wheelhouse, version, **answer)
        package = Package(version, sha256_file(str(path)), str(path))
        if not answer and not self.base.env_is_complete(package):
            # As any release is staged; a rollout would do it, too, while its test waits.
            Stage(Target(KEEPER, str(self.dir / "base/keeper"), self.base.path, config="", version=version, keep=100,
                         wheelhouse=str(self.wheelhouse), python=self.python, min_free_mb=0)).run(False)

    def _clear(self) -> None:
        """Leave what was built, and nothing of the fleet before."""
        self.dir.mkdir(parents=True, exist_ok=True)
        for path in (*self.dir.iterdir(), *self.dir.glob("base/workers"), *self.dir.glob("base/releases/*")):
            if path == self.dir / "base" or (self.base.metadata(path.name) or {}).get("worker") == KEEPER:
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _host(self, number: int) -> dict[str, Any]:
        name = f"w{number}"
        control = self._run_dir / f"{name}.sock"
        command = [self.python, "-IS", str(HERE / "lightworker/ctl.py"), str(self._run_dir / "admin")]

        def service(place: str, told: Path) -> dict[str, Any]:
            asked = f"test -e {told} || exit 3; read code pid < {told}; echo pid $pid; exit $code"
            return {"start": [*command, f"start{place}", name], "stop": [*command, f"stop{place}", name],
                    "status": ["/bin/sh", "-c", asked]}

        return {
            "solver_control_socket": str(control), "solver_data_port": FIRST_PORT + number, "solver_standby": True,
            "solver_service": {**service("", control.with_suffix(".service")), "timeout": 5},
            "solver_standby_service": service("-standby", control.with_suffix(".standby.service")),
        }

    def _worker_dir(self, name: str) -> Path:
        return Path(self.base.path, "workers", name)

    def _spec(self, name: str, drain_s: float | tuple[float, float], load: int, seed: int) -> dict[str, Any]:
        if isinstance(drain_s, tuple):
            drain_s = round(random.Random(f"{seed} {name}").uniform(*drain_s), 3)
        return {"name": name, "path": self._hosts[name]["solver_control_socket"], "drain_s": drain_s, "load": load,
                "seed": seed,
                "worker_dir": str(self._worker_dir(name))}

    def link(self, version: str, *workers: str, name: str = "current") -> None:
        """Link workers to VERSION: to the release, to the byte, that staging would make of the inventory."""
        package = Package(version, sha256_file(str(self.wheelhouse / f"solver_worker-{version}-py3-none-any.whl")))
        found = _settings_rules.resolve(self.hosts(), need_version=False)
        assert not found.errors, found.errors
        for worker in workers:
            config = _toml.dumps(found.workers[worker]["config"])
            folder = Path(self.base.release(release_id(package, Content(config))))
            if not folder.exists():
                _write_release(folder, package, config, worker)
            self._worker_dir(worker).mkdir(parents=True, exist_ok=True)
            switch_link(str(self._worker_dir(worker) / name), str(folder))

    def _start(self, workers: list[dict[str, Any]]) -> None:
        path = os.pathsep.join((str(HERE), str(SOURCE / "src")))
        with (self.dir / "light.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lightworker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, env={**os.environ, "PYTHONPATH": path}, start_new_session=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wanted = {"admin": str(self._run_dir / "admin"), "log": str(self.dir / "states.jsonl"),
                  "run_dir": str(self._run_dir), "workers": workers}
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        # Every socket is open when it says so.
        assert self._process.stdout.readline() == "ready\n", (self.dir / "light.log").read_text(encoding="utf-8")

    # -- the inventory

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {name: {**self.vars, **own} for name, own in self._hosts.items()}

    def write_inventory(self, name: str, without: Iterable[str] = (), **changes: dict[str, Any]) -> Path:
        """Write an inventory, as JSON, which Ansible reads faster; with some variables of some workers changed."""
        hosts = {host: {**own, **changes.get(host, {})} for host, own in self._hosts.items() if host not in without}
        path = self.dir / name
        path.write_text(json.dumps({"solver_workers": {"vars": self.vars, "hosts": hosts}}), encoding="utf-8")
        return path

    # -- faults

    def set_fault(self, *workers: str, version: str | None = None, **faults: Any) -> None:
        """Have these workers (default: all), as long as they run VERSION (default: any), behave like this.

        lightworker/behaviour.py lists what there is. It holds at once, also for processes that run.
        """
        self._admin("fault", faults, list(workers) or None, version)

    def heal(self) -> None:
        """End all faults; who is dead stays dead."""
        self._admin("heal")

    def start(self, worker: str) -> None:
        self._admin("start", worker)

    def stop(self, worker: str) -> None:
        self._admin("stop", worker)

    def start_standby(self, worker: str) -> None:
        """Start what lies behind the link `standby`: with an order beside the control socket as a standby."""
        self._admin("start-standby", worker)

    def stop_standby(self, worker: str) -> None:
        self._admin("stop-standby", worker)

    def kill(self, worker: str) -> None:
        self._admin("kill", worker)

    def _admin(self, *words: Any) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as admin:
            admin.settimeout(30)
            admin.connect(str(self._run_dir / "admin"))
            admin.sendall(json.dumps(words).encode() + b"\n")
            answer = admin.makefile().readline()
        assert answer == "ok\n", answer

    def memory_mb(self) -> float:
        """How much memory the one process holds."""
        assert self._process is not None
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii"))
        assert found is not None
        return int(found.group(1)) / 1024

    # -- what happened

    def events(self) -> list[dict[str, Any]]:
        """Everything that the workers did, in order: states, probes, drains and their ends."""
        lines = (self.dir / "states.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def most_out_at_once(self) -> int:
        """How many workers were out of service at the worst instant, from when all served for the first time."""
        return most_out_at_once(self.events(), len(self._hosts))

    def served_by_unverified(self) -> list[tuple[str, str]]:
        """Workers and versions that took tasks without having solved a probe there; empty is what is promised."""
        return served_by_unverified(self.events())


def _write_release(folder: Path, package: Package, config: str, worker: str) -> None:
    folder.mkdir()
    (folder / "env").symlink_to(Path("../../envs", package.env_name))
    (folder / "config.toml").write_text(config, encoding="utf-8")
    (folder / "release.json").write_text(json.dumps({
        "schema": SCHEMA, "id": folder.name, "version": package.version, "package_digest": package.digest,
        "worker": worker, "created_at": "2026-01-01T00:00:00.000000Z"}), encoding="utf-8")


def most_out_at_once(events: Iterable[dict[str, Any]], size: int) -> int:
    serving: set[str] = set()
    complete, most = False, 0
    for event in events:
        if "state" not in event:
            continue
        if event["state"] == "running":
            serving.add(event["worker"])
        else:
            serving.discard(event["worker"])
        complete = complete or len(serving) == size
        if complete:
            most = max(most, size - len(serving))
    assert complete, "at no time did all workers serve"
    return most


def served_by_unverified(events: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """The version that a worker serves with first needs no proof, another one a probe before it accepts."""
    proven: dict[str, set[str]] = {}
    found = []
    for event in events:
        own = proven.setdefault(event["worker"], set())
        if event.get("probe") == "succeeded":
            own.add(event["version"])
        if event.get("accepting") and event["version"] not in own:
            if own:
                found.append((event["worker"], event["version"]))
            own.add(event["version"])
    return found
