# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet on real test hosts: the sandbox provider that they can reach, its inventory, traffic, and the books."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from fleetlib import SANDBOX, SOURCE, Fleet, broken_releases, built_wheels, wait_for
from lab import Host, Lab, descendants, locked

WORKER_ENV = {**os.environ, "PYTHONPATH": str(SOURCE / "src")}
PACE = {"first_poll_image_s": 0.5, "first_poll_s": 1.0, "poll_interval_s": 0.5, "submit_timeout_s": 10.0}


def recap(out: str) -> dict[str, int]:
    """The worst counters of the play's recap."""
    found: dict[str, int] = {}
    for name, value in re.findall(r"(ok|changed|unreachable|failed|skipped|rescued)=(\d+)", out):
        found[name] = max(found.get(name, 0), int(value))
    return found


class Forwarder:
    """Lets the hosts reach one port of loopback, by the lab's own network and no other."""

    def __init__(self, address: str, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.server = socket.create_server((address, 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client = self.server.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(self.target, 10) as far:
                back = threading.Thread(target=_pump, args=(far, client), daemon=True)
                back.start()
                _pump(client, far)
                back.join(60)
        except OSError:
            return

    def close(self) -> None:
        self.server.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


class HostFleet(Fleet):
    """Workers under systemd on the hosts of a lab."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        super().__init__(folder)
        self.lab = lab
        self.key, self.token = secrets.token_hex(16), secrets.token_hex(16)
        (folder / "key").write_text(self.key + "\n")
        (folder / "token").write_text(self.token + "\n")
        broken = broken_releases(folder.parent / "overlays")
        self.wheels = built_wheels(["1.2.0", "1.3.0", *broken], broken)
        self._wheels_for(lab.python())
        self.sandbox = subprocess.Popen(
            [sys.executable, "-m", "solver_worker", "sandbox", *SANDBOX, "--ledger-file", str(folder / "ledger.jsonl")],
            env=WORKER_ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.sandbox.stdout is not None
        self.sandbox_url = json.loads(self.sandbox.stdout.readline())["url"]
        self.forwarder = Forwarder(f"{lab.net}.1", int(self.sandbox_url.rsplit(":", 1)[1]))
        self.workers: dict[str, tuple[Host, int]] = {}
        self.router: Host | None = None

    def _wheels_for(self, python: str) -> None:
        """Bring what fits the hosts too, where their Python is another one than this; the releases fit any."""
        if python == f"{sys.version_info.major}.{sys.version_info.minor}":
            return
        # Another test process reads the same folder.
        with locked(self.wheels.with_name(f"{self.wheels.name}.lock")):
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
                            "--python-version", python, "--find-links", str(self.wheels), "--dest", str(self.wheels),
                            "solver-worker==1.3.0"], check=True, timeout=300, env=os.environ)

    def place(self, **workers: str) -> None:
        """Say which worker is on which host, and write the inventory."""
        ports: dict[str, int] = {}
        self.workers = {}
        for name, host in workers.items():
            ports[host] = ports.get(host, 8080) + 1
            self.workers[name] = (self.lab.hosts[host], ports[host])
        self.write()

    def write(self, per_worker: dict[str, dict[str, Any]] | None = None, **more: Any) -> None:
        shared = {
            "ansible_user": "deploy", "ansible_ssh_private_key_file": f"{self.lab.dir}/key",
            "ansible_ssh_common_args": f"-F {self.lab.dir}/ssh_config",
            "ansible_python_interpreter": "/usr/bin/python3",
            "solver_become": True, "solver_wheelhouse": str(self.wheels), "solver_offline": True,
            "solver_provider_url": f"http://{self.lab.net}.1:{self.forwarder.port}",
            "solver_api_key": self.key, "solver_data_token": self.token,
            "solver_data_token_file": "/etc/solver/{{ inventory_hostname }}.token",
            "solver_data_host": "{{ ansible_host }}", "solver_worker_config": {"provider": PACE},
            "solver_min_healthy_time": 0, "solver_drain_grace": 1, "solver_probe_interval": 2,
            "solver_verdict_file": str(self.dir / "verdict.json"), **more}
        hosts = {name: {"ansible_host": host.address, "solver_data_port": port, **(per_worker or {}).get(name, {})}
                 for name, (host, port) in self.workers.items()}
        groups: dict[str, Any] = {"solver_workers": {"hosts": hosts, "vars": shared}}
        if self.router is not None:
            own = {"ansible_host": self.router.address, "solver_router_bind": [f"{self.router.address}:8090"]}
            login = {name: value for name, value in shared.items() if name.startswith(("ansible_", "solver_become"))}
            groups["solver_routers"] = {"hosts": {self.router.name: own}, "vars": login}
        self.inventory.write_text(json.dumps(groups, indent=1))

    # -- the router ----------------------------------------------------------------------------

    def route(self, host: str) -> None:
        self.router = self.lab.hosts[host]
        self.write()

    def router_url(self) -> str:
        assert self.router is not None
        return f"http://{self.router.address}:8090"

    def on_router(self, command: str) -> str:
        assert self.router is not None
        done = self.router.ssh(command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def haproxy(self, command: str) -> str:
        assert self.router is not None
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(f"/proc/{self.router.init()}/root/run/solver-router/stats.sock")
            line.sendall(command.encode() + b"\n")
            found = b""
            while data := line.recv(65536):
                found += data
        return found.decode()

    def start_clients(self, clients: int, image_bytes: int = 0) -> None:
        """Clients that know the router alone, each with one task at a time; with image_bytes, half of them images."""
        mix = "userrecaptcha=1,base64=1" if image_bytes else "userrecaptcha=1"
        self._start_traffic(["--clients", str(clients), "--body-bytes", str(image_bytes), "--mix", mix,
                             "--worker", f"router={self.router_url()}"])
        self.wait_for_accepted(clients)

    def accepted_by_method(self) -> dict[str, int]:
        """Of the client's own book."""
        events = [json.loads(line) for line in (self.dir / "book.jsonl").read_text(encoding="utf-8").splitlines()]
        methods = {event["key"]: event["method"] for event in events if event["event"] == "task"}
        return dict(Counter(methods[event["key"]] for event in events if event["event"] == "accepted"))

    def refusals(self) -> str:
        """What the clients were told, and what HAProxy wrote of it: for whoever reads a failure."""
        lines = (self.dir / "book.jsonl").read_text(encoding="utf-8").splitlines()
        told = [line for line in lines if json.loads(line)["event"] in ("declined", "refused", "rejected")]
        log = self.on_router("journalctl --no-pager -u solver-router | grep 'HTTP/' | grep -v ' 20[0-9] ' | tail -40")
        return "\n".join([*told[-20:], log])

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.dir / "audit.json").read_text(encoding="utf-8")))

    def pid(self, worker: str) -> int:
        """The worker's process, as this machine numbers it."""
        inside = str(self.status(worker)["instance"]["pid"])
        # Another lab may have a worker of this name.
        for one in (Path(f"/proc/{each}/status") for each in descendants(self.workers[worker][0].pid() or 0)):
            try:
                numbers = one.read_text().split("NSpid:")[1].splitlines()[0].split()
            except (OSError, IndexError):
                continue
            if numbers[1:] == [inside] and f"/{worker}/" in (one.parent / "cmdline").read_text().replace("\0", " "):
                return int(numbers[0])
        raise AssertionError(f"no process of {worker}")

    def module(self, host: str, name: str, *words: str, **values: Any) -> dict[str, Any]:
        return super().module(host, name, "-b", *words, **values)

    def urls(self) -> dict[str, str]:
        return {name: f"http://{host.address}:{port}" for name, (host, port) in self.workers.items()}

    def root_of(self, worker: str) -> Path:
        """The worker's host as this machine sees it."""
        return self.workers[worker][0].root

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {name: {} for name in self.workers}

    def socket(self, worker: str) -> str:
        """The worker's control socket, through the window that the kernel has into the host."""
        return f"/proc/{self.workers[worker][0].init()}/root/run/solver/{worker}/control.sock"

    def journal(self, worker: str) -> Path:
        return self.root_of(worker) / f"var/lib/solver/{worker}/journal.sqlite3"

    def start_traffic(self, rate: float = 10.0, at_least_open: int = 3) -> None:
        workers = [word for name, url in self.urls().items() for word in ("--worker", f"{name}={url}")]
        self._start_traffic(["--rate", str(rate), "--mix", "userrecaptcha=1", *workers])
        wait_for(lambda: all(self.status(name)["tasks"]["open"] >= at_least_open for name in self.workers),
                 f"{at_least_open} open tasks on every worker")

    def only_traffic(self, worker: str, rate: float) -> None:
        self._start_traffic(["--rate", str(rate), "--mix", "userrecaptcha=1",
                             "--worker", f"{worker}={self.urls()[worker]}"])
        wait_for(lambda: self.status(worker)["tasks"]["open"] >= 3, f"3 open tasks on {worker}")

    def _start_traffic(self, more: list[str]) -> None:
        for left in ("traffic.stop", "audit.json", "book.jsonl"):
            (self.dir / left).unlink(missing_ok=True)
        command = [sys.executable, "-m", "solver_worker", "traffic", "run", "--duration", "240",
                   "--until-file", str(self.dir / "traffic.stop"), "--seed", "5",
                   "--token-file", str(self.dir / "token"), "--book", str(self.dir / "book.jsonl"),
                   "--report", str(self.dir / "audit.json"), "--ledger-file", str(self.dir / "ledger.jsonl")]
        for name in self.workers:
            command += ["--journal", f"{name}={self.journal(name)}"]
        log = (self.dir / "traffic.log").open("wb")
        self.traffic = subprocess.Popen([*command, *more], env=WORKER_ENV, stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, start_new_session=True)

    def wait_for_accepted(self, least: int) -> None:
        """Let the traffic go on until so many tasks were taken."""
        book = self.dir / "book.jsonl"
        wait_for(lambda: book.exists() and book.read_text(encoding="utf-8").count('"accepted"') >= least,
                 f"{least} accepted tasks", 60)

    def close(self) -> None:
        if self.traffic is not None:
            self.traffic.kill()
            self.traffic.wait(20)
        self.forwarder.close()
        self.sandbox.terminate()
        self.sandbox.wait(20)
