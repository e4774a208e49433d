# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries open tasks from accepted to a final state: submits, polls, and commits before each step."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from . import codes, logs, pace
from .clock import Clock
from .codes import Answer, Class
from .config import Config
from .journal import Final, Journal, Row, digest_of
from .provider import Provider, error_class
from .pulse import Pulse

T = TypeVar("T")

PARALLEL = 100
RETRY_UNREACHABLE_S = 2.0
RETRY_JOURNAL_S = 1.0
RESUBMITS_AT_MOST = 3
# A paid task whose provider is silent, or asks for a pause, gets this much more time before it is given up, or its
# limit once more where that is shorter.
SILENCE_GRACE_S = 60.0
SUBMIT_UNKNOWN = "SUBMIT_OUTCOME_UNKNOWN"
PAYLOAD_DAMAGED = "PAYLOAD_DAMAGED"
TOKEN_TOO_OLD = "TOKEN_TOO_OLD"  # noqa: S105 (an error code)


@dataclass(slots=True)
class Task:
    """What has to be in memory; the payload is not."""

    id: str
    method: str
    state: str
    accepted_at: float
    provider_id: str = ""
    submitted_at: float = 0.0
    last_not_ready: float | None = None
    resubmits: int = 0
    asked_from: float = 0.0  # the instant of this process's first poll, when an earlier one left it
    late_since: float | None = None  # when this process first found it beyond its limit
    fault: Class = "provider"  # whose, when its time is up


class DueQueue:
    """Tasks by the instant at which their next call is due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Task]] = []
        self._order = itertools.count()

    def push(self, at: float, task: Task) -> None:
        heapq.heappush(self._heap, (at, next(self._order), task))

    def pop(self) -> Task:
        return heapq.heappop(self._heap)[2]

    def delay(self, now: float) -> float | None:
        return self._heap[0][0] - now if self._heap else None


class Engine:
    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        journal: Journal,
        provider: Provider,
        may_submit: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._journal = journal
        self._provider = provider
        self._may_submit = may_submit
        self._changed = changed
        self.tasks: dict[str, Task] = {}
        self.wire: set[str] = set()  # ids with an in.php call on the wire
        self._to_submit = DueQueue()
        self._to_poll = DueQueue()
        self._polling = 0
        self._wake = Pulse()
        self._finals: dict[str, Pulse] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._calls: set[asyncio.Task[None]] = set()

    # -- life

    def load(self) -> None:
        """Takes over what an earlier process left open."""
        rows = self._journal.open_tasks()
        resumed = sum(row.state == "polling" for row in rows)
        for row in rows:
            self._take_over(row, resumed)
        if rows:
            logs.info("resumed open tasks", open=len(self.tasks), polling=resumed)

    def _take_over(self, row: Row, resumed: int) -> None:
        task = Task(row.id, row.method, row.state, row.accepted_at, resubmits=row.resubmits)
        self.tasks[task.id] = task
        if row.state == "polling":
            task.provider_id = row.provider_id or ""
            task.submitted_at = row.submitted_at or row.accepted_at
            due_in = task.submitted_at + self._first_poll(task) - self._clock.now()
            interval = self._config.provider.poll_interval_s
            task.asked_from = self._clock.boot() + pace.resume_delay(due_in, resumed, interval)
            self._to_poll.push(task.asked_from, task)
        elif row.state == "submitting":
            self._outcome_unknown(task, "PROCESS_ENDED")
        else:
            self._to_submit.push(self._clock.boot(), task)

    def run(self) -> None:
        self._loops = [asyncio.create_task(self._keep(loop)) for loop in (self._submit_loop, self._poll_loop)]

    @staticmethod
    async def _keep(loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Whatever one task does to a loop, the others' calls go on."""
        while True:
            try:
                await loop()
            except Exception as exc:  # noqa: BLE001
                logs.error("a loop of the engine broke; it begins anew", cause=logs.cause_of(exc))
                await asyncio.sleep(RETRY_JOURNAL_S)

    async def stop(self, within: float) -> None:
        """The hand-over: begin nothing, let calls of in.php return, leave polls to the next process."""
        for loop in self._loops:
            loop.cancel()
        ends = self._clock.boot() + within
        while self.wire and self._clock.boot() < ends:
            await self._wake.wait(ends - self._clock.boot())
        if self.wire:
            logs.warning("hand-over ran out of time", on_the_wire=len(self.wire))
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._loops, *self._calls, return_exceptions=True)

    def wake(self) -> None:
        self._wake.fire()

    def add(self, task_id: str, method: str, accepted_at: float) -> None:
        task = Task(task_id, method, "accepted", accepted_at)
        self.tasks[task_id] = task
        self._to_submit.push(self._clock.boot(), task)
        self.wake()

    async def wait_final(self, task_id: str, timeout: float) -> None:
        if task_id in self.tasks and timeout > 0:
            await self._finals.setdefault(task_id, Pulse()).wait(timeout)

    def release_waiters(self) -> None:
        for pulse in self._finals.values():
            pulse.fire()
        self._finals.clear()

    def sweep(self) -> None:
        """Ends what is beyond its time, whatever the provider answers or does not answer."""
        now, boot = self._clock.now(), self._clock.boot()
        for task in [t for t in self.tasks.values() if t.id not in self.wire and self._left(t, now) <= 0]:
            if task.late_since is None:
                # A paid one is asked for once more first: there may have been a long pause.
                task.late_since = max(boot, task.asked_from)
            if task.state != "polling" or boot >= task.late_since + self._grace():
                self._time_is_up(task, now)

    def _left(self, task: Task, now: float) -> float:
        return task.accepted_at + self._config.tasks.time_limit_s - now

    def _grace(self) -> float:
        config = self._config
        return max(min(SILENCE_GRACE_S, config.tasks.time_limit_s), 2 * config.provider.poll_interval_s)

    def _time_is_up(self, task: Task, now: float) -> None:
        if task.state == "submitting":  # its call broke in our hands
            self._finish(task, Final("uncertain", now, error_code=SUBMIT_UNKNOWN, error_class="network"))
        else:
            self._finish(task, Final("failed", now, error_code=codes.TIMEOUT, error_class=task.fault))

    def _first_poll(self, task: Task) -> float:
        section = self._config.provider
        return section.first_poll_image_s if codes.is_image(task.method) else section.first_poll_s

    def _spawn(self, call: Coroutine[Any, Any, None]) -> None:
        running = asyncio.create_task(call)
        self._calls.add(running)
        running.add_done_callback(self._called)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        exc = None if call.cancelled() else call.exception()
        if exc is not None:
            logs.error("a call broke; its task waits for its time limit", cause=logs.cause_of(exc))

    async def _durably(self, step: Callable[[], T]) -> T:
        """A full disk must not cost an answer that we already have: try until it is written."""
        while True:
            try:
                return step()
            except sqlite3.Error as exc:
                logs.error("writing the journal failed", cause=str(exc))
                await asyncio.sleep(RETRY_JOURNAL_S)

    # -- submit

    async def _submit_loop(self) -> None:
        while True:
            delay = self._submit_delay()
            if delay > 0:
                await self._wake.wait(min(delay, 1.0))
                continue
            self._begin_submit(self._to_submit.pop())
            await asyncio.sleep(0)

    def _submit_delay(self) -> float:
        due = self._to_submit.delay(self._clock.boot())
        if due is None or not self._may_submit() or len(self.wire) >= PARALLEL:
            return 1.0
        return max(due, self._provider.submit_delay())

    def _begin_submit(self, task: Task) -> None:
        if task.id not in self.tasks:
            return  # ended while it waited
        try:
            fields = _payload(self._journal.by_id(task.id))
            if fields is None:
                logs.error("the payload of a task is damaged in the journal", task=task.id)
                final = Final("failed", self._clock.now(), error_code=PAYLOAD_DAMAGED, error_class="worker")
                self._finish(task, final)
                return
            self._journal.submitting(task.id)
        except (sqlite3.Error, ValueError) as exc:
            logs.error("writing the journal failed", cause=str(exc))
            self._to_submit.push(self._clock.boot() + RETRY_JOURNAL_S, task)
            return
        task.state = "submitting"
        self.wire.add(task.id)
        self._spawn(self._submit(task, fields))

    async def _submit(self, task: Task, fields: dict[str, str]) -> None:
        try:
            answer = await self._provider.submit(fields, within=self._left(task, self._clock.now()))
            await self._durably(lambda: self._submitted(task, answer))
        finally:
            self.wire.discard(task.id)
            self._changed()
            self.wake()

    def _submitted(self, task: Task, answer: Answer) -> None:
        if answer.kind == "ok":
            now = self._clock.now()
            self._journal.polling(task.id, answer.value, now)
            task.state, task.provider_id, task.submitted_at = "polling", answer.value, now
            self._to_poll.push(self._clock.boot() + self._first_poll(task), task)
        elif answer.kind == "unreachable":
            self._submit_again(task, pace.jitter(RETRY_UNREACHABLE_S))
        elif answer.kind == "error":
            self._refused(task, answer.value)
        else:
            self._outcome_unknown(task, answer.value)

    def _refused(self, task: Task, code: str) -> None:
        verdict = self._provider.submit_verdict(code)
        if verdict.retry_s is not None:
            self._submit_again(task, pace.jitter(verdict.retry_s))
            return
        final = Final("failed", self._clock.now(), error_code=code, error_class=verdict.error_class)
        self._finish(task, final)

    def _submit_again(self, task: Task, after: float, resubmit: bool = False) -> None:
        self._journal.not_submitted(task.id, resubmit)
        task.state = "accepted"
        task.resubmits += int(resubmit)
        self._to_submit.push(self._clock.boot() + after, task)

    def _outcome_unknown(self, task: Task, cause: str) -> None:
        """The provider may have the task and may bill it: the operator's policy decides."""
        logs.warning("outcome of a submit is unknown", task=task.id, cause=cause)
        resubmit = self._config.tasks.on_uncertain == "resubmit" and task.resubmits < RESUBMITS_AT_MOST
        if resubmit:
            self._submit_again(task, RETRY_UNREACHABLE_S, resubmit=True)
            return
        final = Final("uncertain", self._clock.now(), error_code=SUBMIT_UNKNOWN, error_class="network")
        self._finish(task, final)

    # -- poll

    async def _poll_loop(self) -> None:
        while True:
            due = self._to_poll.delay(self._clock.boot())
            if due is None or self._polling >= PARALLEL:
                due = 1.0
            delay = max(due, self._provider.poll_delay())
            if delay > 0:
                await self._wake.wait(min(delay, 1.0))
                continue
            task = self._to_poll.pop()
            if task.id in self.tasks:
                self._polling += 1
                self._spawn(self._poll(task))
            await asyncio.sleep(0)

    async def _poll(self, task: Task) -> None:
        try:
            answer = await self._provider.poll(task.provider_id)
            await self._durably(lambda: self._polled(task, answer))
        finally:
            self._polling -= 1
            self.wake()

    def _polled(self, task: Task, answer: Answer) -> None:
        if task.id not in self.tasks:
            return  # its time was up while the provider was asked
        now = self._clock.now()
        if answer.kind == "not_ready":
            task.last_not_ready = now
        task.fault = error_class(answer) if answer.kind in ("unreachable", "unclear") else "provider"
        final = self._judge(task, answer, now)
        if final is not None:
            self._finish(task, final)
        elif self._left(task, now) <= 0 and not answer.silent:
            self._time_is_up(task, now)
        else:
            self._poll_later(task, now)

    def _poll_later(self, task: Task, now: float) -> None:
        interval = self._config.provider.poll_interval_s
        wait = pace.poll_interval(interval, now - task.submitted_at, self._provider.allowance())
        left = self._left(task, now)
        # The last poll is due when the limit is, not up to five intervals later.
        self._to_poll.push(self._clock.boot() + (min(wait, left) if left > 0 else wait), task)

    def _judge(self, task: Task, answer: Answer, now: float) -> Final | None:
        if answer.kind == "ok":
            return self._solved(task, answer.value, now)
        if answer.kind == "error":
            verdict = codes.poll_verdict(answer.value)
            if verdict.retry_s is None:
                return Final("failed", now, error_code=answer.value, error_class=verdict.error_class)
        return None

    def _solved(self, task: Task, solution: str, now: float) -> Final:
        """The token's age counts from the last instant at which it certainly did not exist."""
        solved_at = task.last_not_ready or task.submitted_at
        if codes.is_image(task.method):
            return Final("succeeded", now, solution, solved_at)
        expires_at = solved_at + self._config.tasks.token_life_s
        if now >= expires_at:
            return Final(
                "expired",
                now,
                solved_at=solved_at,
                expires_at=expires_at,
                error_code=TOKEN_TOO_OLD,
                error_class="provider",
            )
        return Final("succeeded", now, solution, solved_at, expires_at)

    def _finish(self, task: Task, final: Final) -> None:
        self._journal.finish(task.id, final, final.at - task.accepted_at)
        self.tasks.pop(task.id, None)
        logs.info("task ended", task=task.id, state=final.state, code=final.error_code)
        waiters = self._finals.pop(task.id, None)
        if waiters is not None:
            waiters.fire()
        self._changed()


def _payload(row: Row | None) -> dict[str, str] | None:
    """What the client sent, or nothing if it is that no more: bits do flip, and a wrong task costs money."""
    try:
        document = json.loads(row.payload) if row and row.payload else None
        return document if row and document and digest_of(document) == row.digest else None
    except (ValueError, TypeError, RecursionError):
        return None
