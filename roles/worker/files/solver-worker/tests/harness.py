# SPDX-License-Identifier: GPL-3.0-or-later
"""Real processes for the tests: a sandbox provider, workers, and clients of both their APIs."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).parent
KEY = "0123456789abcdef0123456789abcdef"
PATIENCE_S = 15.0


async def eventually(probe: Callable[[], Any], within: float = PATIENCE_S) -> Any:
    """Waits for a condition, never for a time; the probe may be a coroutine function."""
    ends = time.monotonic() + within
    while True:
        value = probe()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < ends, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    def __init__(self, arguments: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), **(env or {})}
        with log.open("ab") as err:
            self._process = subprocess.Popen(
                arguments, stdout=subprocess.PIPE, stderr=err, env=environment, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ready_line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    async def wait(self, within: float = PATIENCE_S) -> int:
        return await asyncio.to_thread(self._process.wait, within)

    def end(self) -> None:
        if self.alive:
            self._process.kill()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


class World:
    """One sandbox, any number of workers, all ended with the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._processes: list[Process] = []
        self.url = ""
        self.http: aiohttp.ClientSession

    def sandbox(self, *options: str) -> Process:
        command = [sys.executable, "-m", "solver_worker", "sandbox", "--port", "0", *options]
        process = Process(command, self.home / "sandbox.log")
        self._processes.append(process)
        self.url = process.ready_line()["url"]
        return process

    def worker(self, name: str = "w1", **settings: dict[str, Any]) -> "Worker":
        return Worker(self, name, settings)

    async def run(self, function: Callable[..., int], *arguments: Any) -> int:
        return await asyncio.to_thread(function, *arguments)

    def keep(self, process: Process) -> Process:
        self._processes.append(process)
        return process

    async def faults(self, *faults: dict[str, Any]) -> None:
        async with self.http.post(self.url + "/__faults", json=list(faults)) as reply:
            assert reply.status < 300, await reply.text()

    async def no_faults(self) -> None:
        async with self.http.delete(self.url + "/__faults") as reply:
            assert reply.status < 300, await reply.text()

    async def submits(self) -> dict[str, int]:
        """How often the provider was given each nonce."""
        async with self.http.get(self.url + "/__ledger") as reply:
            document = await reply.json()
        return {nonce: len(entry["submits"]) for nonce, entry in document["nonces"].items()}

    def end(self) -> None:
        for process in reversed(self._processes):
            process.end()


class Worker:
    def __init__(self, world: World, name: str, settings: dict[str, dict[str, Any]]) -> None:
        self.world = world
        self.name = name
        self.home = world.home / name
        self.home.mkdir(exist_ok=True)
        self.port = free_port()
        self.socket = self.home / "c.sock"
        self.config = self.home / "config.toml"
        self.key_file = self.home / "key"
        self.key_file.write_text(KEY)
        self.process: Process | None = None
        self.configure(**settings)

    def configure(self, **settings: dict[str, Any]) -> None:
        document: dict[str, dict[str, Any]] = {
            "worker": {"name": self.name, "state_dir": str(self.home / "state")},
            "control": {"socket": str(self.socket)},
            "data": {"port": self.port},
            "provider": {
                "url": self.world.url or "http://127.0.0.1:1",
                "api_key_file": str(self.key_file),
                "first_poll_image_s": 0.1,
                "first_poll_s": 0.1,
                "poll_interval_s": 0.1,
            },
        }
        for section, values in settings.items():
            document.setdefault(section, {}).update(values)
        lines: list[str] = []
        for section, values in document.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(HERE / "wrapped.py"), *arguments]

    async def start(self, until: str = "running", **env: str) -> "Worker":
        command = self.command("serve", "--config", str(self.config))
        self.process = self.world.keep(Process(command, self.home / "log", env))
        if until:
            document = await self.reach(until)
            assert document["instance"]["pid"] == self.process.pid
        return self

    async def reach(self, *states: str, within: float = PATIENCE_S) -> Any:
        async def reached() -> Any:
            try:
                _unused, document = await self.control("GET", f"/v1/status?wait=5&until={','.join(states)}")
            except (aiohttp.ClientError, OSError):
                assert self.process is not None
                assert self.process.alive, self.log
                return None
            return document if document["state"] in states else None

        return await eventually(reached, within)

    async def status(self) -> Any:
        return (await self.control("GET", "/v1/status"))[1]

    async def control(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.request(method, "http://localhost" + target, json=body, headers=headers) as reply,
        ):
            text = await reply.text()
            return reply.status, json.loads(text) if text else None

    async def drain(self, owner: str = "me", **fields: Any) -> tuple[int, Any]:
        return await self.control("PUT", "/v1/drain", {"owner": owner, **fields})

    async def resume(self, owner: str = "me", more: str = "") -> tuple[int, Any]:
        return await self.control("DELETE", f"/v1/drain?owner={owner}{more}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def post(self, key: str, body: Any, wait: float = 0) -> tuple[int, Any]:
        target = f"{self.url}/v1/tasks" + (f"?wait={wait}" if wait else "")
        async with self.world.http.post(target, json=body, headers={"Idempotency-Key": key}) as reply:
            return reply.status, await reply.json()

    async def get(self, task_id: str, wait: float = 0) -> tuple[int, Any]:
        target = f"{self.url}/v1/tasks/{task_id}" + (f"?wait={wait}" if wait else "")
        async with self.world.http.get(target) as reply:
            return reply.status, await reply.json()

    async def delete(self, task_id: str) -> int:
        async with self.world.http.delete(f"{self.url}/v1/tasks/{task_id}") as reply:
            return reply.status

    async def final(self, task_id: str) -> Any:
        async def ended() -> Any:
            status, document = await self.get(task_id, wait=5)
            assert status == 200, document
            return document if document["state"] not in ("accepted", "submitting", "polling") else None

        return await eventually(ended)

    async def term(self) -> None:
        assert self.process is not None
        self.process.send(signal.SIGTERM)
        assert await self.process.wait() == 0, self.log

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send(signal.SIGKILL)
        await self.process.wait()


def task(number: int, **more: str) -> dict[str, str]:
    return {
        "method": "userrecaptcha",
        "googlekey": f"nonce-{number:08x}",
        "pageurl": "https://shop.test/",
        **more,
    }


def balanced(totals: dict[str, int], open_tasks: int) -> bool:
    ended = sum(totals[name] for name in ("succeeded", "failed", "uncertain", "expired"))
    return totals["accepted"] == ended + open_tasks
