# SPDX-License-Identifier: GPL-3.0-or-later
"""A light router: new tasks only to workers whose health answer is 200."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .client import Client

INTERVAL_S = 0.2


class Router:
    def __init__(self, client: Client, workers: Iterable[str]) -> None:
        self._client = client
        self._order = list(workers)
        self._serving: set[str] = set()
        self._next = 0

    @property
    def serving(self) -> list[str]:
        return [name for name in self._order if name in self._serving]

    def choose(self) -> str | None:
        """The next serving worker in turn, or None."""
        for _unused in self._order:
            name = self._order[self._next % len(self._order)]
            self._next += 1
            if name in self._serving:
                return name
        return None

    def declined(self, name: str) -> None:
        """It refused: leave it out until its next health answer."""
        self._serving.discard(name)

    async def watch(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in self._order:
                group.create_task(self._watch(name))

    async def _watch(self, name: str) -> None:
        while True:
            await self.check(name)
            await asyncio.sleep(INTERVAL_S)

    async def check(self, name: str) -> None:
        if await self._client.healthy(name):
            self._serving.add(name)
        else:
            self._serving.discard(name)
