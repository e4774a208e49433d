# SPDX-License-Identifier: GPL-3.0-or-later
"""The load itself: submit at a steady rate, follow every task to its end, write each step down."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from .book import Book
from .client import ACCEPTED, DECLINED, REJECTED, Answer, Client, Outcome
from .router import Router
from .tasks import Task

FINALS = frozenset({"succeeded", "failed", "expired", "uncertain"})
_PAUSE_S = 0.1
_READ_WAIT_S = 25.0


@dataclass(frozen=True)
class Plan:
    workers: Mapping[str, str]
    rate: float
    # With clients, each submits its next task when it has its answer, and the rate is not used.
    clients: int = 0
    # Whichever comes first; at least one is set.
    tasks: int | None = None
    duration_s: float | None = None
    until_file: Path | None = None
    patience_s: float = 15.0
    timeout_s: float = 180.0
    max_open: int = 5000
    token: str | None = None


class Load:
    """One run. `stop()` ends the submitting, `abort()` also the waiting."""

    def __init__(self, plan: Plan, tasks: Iterator[Task], book: Book) -> None:
        self.counts: Counter[str] = Counter()
        self._plan = plan
        self._tasks = tasks
        self._book = book
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """First call: submit no more. Second: do not wait for the rest either."""
        (self._abort if self._stop.is_set() else self._stop).set()

    @property
    def open(self) -> int:
        return len(self._open)

    async def run(self, progress: bool = False) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            self._client = Client(http, self._plan.workers, self._plan.token)
            self._router = Router(self._client, self._plan.workers)
            helpers = [asyncio.create_task(self._router.watch())]
            if progress:
                helpers.append(asyncio.create_task(self._report_progress()))
            self._book.note("begin", workers=dict(self._plan.workers), rate=self._plan.rate)
            try:
                await asyncio.gather(*(self._router.check(name) for name in self._plan.workers))
                await (self._submit_by_clients() if self._plan.clients else self._submit_steadily())
                self._book.note("submitted")
                await self._finish()
            finally:
                await _cancel([*helpers, *self._open])
            # Without an end the audit does not blame the workers for what was not read.
            self._book.note("aborted" if self._abort.is_set() else "end")

    async def _submit_steadily(self) -> None:
        """Open loop: slow workers get no fewer tasks, as with real clients."""
        began = time.monotonic()
        for number in range(self._plan.tasks if self._plan.tasks is not None else sys.maxsize):
            if await self._wait_until(began + number / self._plan.rate) or self._is_over(began):
                return
            task = asyncio.create_task(self._follow(next(self._tasks)))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _submit_by_clients(self) -> None:
        """Closed loop: so many clients, each with one task at a time."""
        began = time.monotonic()
        left = iter(range(self._plan.tasks if self._plan.tasks is not None else sys.maxsize))

        async def client() -> None:
            while not self._stop.is_set() and not self._is_over(began) and next(left, None) is not None:
                await self._follow(next(self._tasks))

        for _number in range(self._plan.clients):
            task = asyncio.create_task(client())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        while self._open and not self._stop.is_set():
            await asyncio.sleep(_PAUSE_S)

    async def _wait_until(self, due: float) -> bool:
        """True if asked to stop meanwhile."""
        while not self._stop.is_set():
            left = due - time.monotonic()
            if left <= 0 and len(self._open) < self._plan.max_open:
                # Also lets the others run when we are behind.
                await asyncio.sleep(0)
                return self._stop.is_set()
            if self._file_says_stop():
                return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(max(left, 0.005), _PAUSE_S))
        return True

    def _is_over(self, began: float) -> bool:
        duration = self._plan.duration_s
        return (duration is not None and time.monotonic() - began >= duration) or self._file_says_stop()

    def _file_says_stop(self) -> bool:
        return self._plan.until_file is not None and self._plan.until_file.exists()

    async def _finish(self) -> None:
        """Every task has its own deadline; wait for them, or for a second signal."""
        aborted = asyncio.create_task(self._abort.wait())
        while self._open and not aborted.done():
            await asyncio.wait({aborted, *self._open}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel([aborted])

    # -- one task ----------------------------------------------------------------------------

    async def _follow(self, task: Task) -> None:
        self._book.note("task", key=task.key, nonce=task.nonce, method=task.method, expected=task.expected)
        found = await self._place(task)
        if found is not None:
            worker, task_id = found
            self.counts["accepted"] += 1
            await self._read(task, self._owner(task_id, worker), task_id)

    async def _place(self, task: Task) -> tuple[str, str] | None:
        """Offer it to serving workers until one takes it, or patience ends."""
        deadline = time.monotonic() + self._plan.patience_s
        cut = task.cut
        while True:
            worker = self._router.choose()
            if worker is not None:
                outcome = await self._offer(task, worker, cut)
                cut = None
                if outcome.kind == ACCEPTED:
                    return worker, outcome.id
                if outcome.kind != DECLINED:
                    return None
                self._router.declined(worker)
            if time.monotonic() >= deadline:
                self._book.note("refused", key=task.key)
                self.counts["refused"] += 1
                return None
            await asyncio.sleep(0 if worker else _PAUSE_S)

    async def _offer(self, task: Task, worker: str, cut: str | None) -> Outcome:
        """One worker, until the outcome is known. A doubtful key never goes to another worker."""
        deadline = time.monotonic() + self._plan.timeout_s
        attempt, doubtful = 0, False
        while True:
            attempt += 1
            self._book.note("send", key=task.key, worker=worker, attempt=attempt, cut=cut)
            outcome = await self._send(task, worker, cut)
            cut = None
            if outcome.kind == DECLINED and outcome.unsent and doubtful:
                outcome = Outcome("unsure", outcome.why)
            self._note(task, worker, outcome)
            if outcome.kind in (ACCEPTED, DECLINED, REJECTED):
                return outcome
            doubtful = True
            if time.monotonic() >= deadline:
                self._book.note("unknown", key=task.key, worker=worker)
                self.counts["unknown"] += 1
                return outcome
            await asyncio.sleep(_PAUSE_S)

    async def _send(self, task: Task, worker: str, cut: str | None) -> Outcome:
        if cut:
            return await self._client.submit_and_cut(worker, task.key, task.body(), cut)
        return await self._client.submit(worker, task.key, task.body())

    def _note(self, task: Task, worker: str, outcome: Outcome) -> None:
        more = {"id": outcome.id} if outcome.id else {}
        self._book.note(outcome.kind, key=task.key, worker=worker, why=outcome.why, **more)

    def _owner(self, task_id: str, worker: str) -> str:
        """The id names its worker: all before the last dash."""
        name = task_id.rpartition("-")[0]
        return name if name in self._plan.workers else worker

    async def _read(self, task: Task, worker: str, task_id: str) -> None:
        deadline = time.monotonic() + self._plan.timeout_s
        while (left := deadline - time.monotonic()) > 0:
            answer = await self._client.read(worker, task_id, min(_READ_WAIT_S, max(1.0, left)))
            if answer.document.get("state") in FINALS and answer.status == 200:
                await self._take(task, worker, task_id, answer)
                return
            if answer.status in (404, 421):
                self._book.note("gone", key=task.key, id=task_id, why=f"read answered {answer.status}")
                self.counts["gone"] += 1
                return
            # Also after a 200: a stopping worker answers every waiting read at once.
            await asyncio.sleep(_PAUSE_S)
        self._book.note("gone", key=task.key, id=task_id, why="no final state in time")
        self.counts["gone"] += 1

    async def _take(self, task: Task, worker: str, task_id: str, answer: Answer) -> None:
        document = answer.document
        self._book.note(
            "final",
            key=task.key,
            id=task_id,
            state=document["state"],
            solution=document.get("solution"),
            error=(document.get("error") or {}).get("code"),
            expires_at=epoch(document.get("expires_at")),
        )
        self.counts[document["state"]] += 1
        for _unused in range(50):
            if (await self._client.delete(worker, task_id)).status in (204, 404):
                self._book.note("fetched", key=task.key)
                return
            await asyncio.sleep(_PAUSE_S)

    async def _report_progress(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(1)
            counts = ", ".join(f"{self.counts[name]} {name}" for name in ("accepted", "succeeded", "failed", "refused"))
            serving = " ".join(self._router.serving) or "nobody"
            print(
                f"{time.monotonic() - began:5.0f} s: {counts}, {self.open} open; serving: {serving}",
                file=sys.stderr,
                flush=True,
            )


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def epoch(text: object) -> float | None:
    """Seconds since the epoch from an RFC 3339 time; None if there is none."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
