# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from solver_worker.sandbox.faults import Plan, parse
from solver_worker.sandbox.ledger import Ledger
from solver_worker.sandbox.provider import Provider, Settings
from solver_worker.sandbox.server import Sandbox

KEY = "k" * 32
RECAPTCHA = {"method": "userrecaptcha", "googlekey": "nonce-0123abcd", "pageurl": "https://shop.test/"}


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Live:
    """A sandbox on a real port, and a client for it."""

    def __init__(self, sandbox: Sandbox, url: str, clock: Clock, http: aiohttp.ClientSession) -> None:
        self.sandbox, self.url, self.clock, self.http = sandbox, url, clock, http

    async def submit(self, **fields: str) -> str:
        async with self.http.post(f"{self.url}/in.php", data={"key": KEY, **RECAPTCHA, **fields}) as reply:
            return await reply.text()

    async def result(self, **fields: str) -> str:
        async with self.http.get(f"{self.url}/res.php", params={"key": KEY, "action": "get", **fields}) as reply:
            return await reply.text()

    async def ledger(self) -> Any:
        async with self.http.get(f"{self.url}/__ledger") as reply:
            return await reply.json()


Start = Callable[..., Awaitable[Live]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[Sandbox] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:

        async def make(faults: object = (), latency: float = 0.0, **settings: Any) -> Live:
            clock = Clock()
            book = (tmp_path / "ledger.jsonl").open("a", encoding="utf-8")
            provider = Provider(Settings(**settings), Ledger(book), clock=clock, wall=lambda: 1_700_000_000.0)
            sandbox = Sandbox(provider, Plan(parse(list(faults))), latency)  # type: ignore[call-overload]
            running.append(sandbox)
            return Live(sandbox, await sandbox.start("127.0.0.1", 0), clock, http)

        yield make
        for sandbox in running:
            await sandbox.stop()
