# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe: one real task through the whole path, in books of its own."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

from . import codes, fields, logs, pace
from .clock import Clock
from .codes import Answer, Class
from .config import Config
from .drain import BadFieldError
from .provider import Provider, error_class

# What the shipped image shows. It is a grey PNG of 5x7 block letters, drawn pixel by pixel; its text
# chunk "answer" tells the sandbox what a person reads in it.
IMAGE = "probe.png"
IMAGE_TEXT = "W7Q4K"


class ProbeRunningError(Exception):
    """Another probe runs; a worker solves one at a time."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


@dataclass(frozen=True)
class Request:
    request_id: str
    task: dict[str, str]
    expect: str | None
    timeout_s: float = 90.0


@dataclass(frozen=True)
class Fault:
    code: str
    error_class: Class
    message: str


def default_task() -> dict[str, str]:
    image = resources.files("solver_worker").joinpath("data", IMAGE).read_bytes()
    return {"method": "base64", "body": base64.b64encode(image).decode("ascii")}


def parse(body: Any) -> Request:
    if not isinstance(body, Mapping):
        raise BadFieldError("body", "must be a JSON object")
    unknown = sorted(set(body) - {"request_id", "task", "expect", "timeout_s"})
    if unknown:
        raise BadFieldError(unknown[0], "is unknown; known: request_id, task, expect, timeout_s")
    request_id = body.get("request_id")
    if not isinstance(request_id, str) or not 1 <= len(request_id) <= 200 or not request_id.isprintable():
        raise BadFieldError("request_id", "is required: 1 to 200 printable characters, new for each probe")
    expect = body.get("expect")
    if expect is not None and not isinstance(expect, str):
        raise BadFieldError("expect", "must be text")
    task = body.get("task")
    if task is None:
        return Request(request_id, default_task(), IMAGE_TEXT if expect is None else expect, _timeout(body))
    return Request(request_id, _task(task), expect, _timeout(body))


def _timeout(body: Mapping[str, Any]) -> float:
    value = body.get("timeout_s", 90.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 900:
        raise BadFieldError("timeout_s", "must be a number from 1 to 900")
    return float(value)


def _task(task: Any) -> dict[str, str]:
    if not isinstance(task, Mapping):
        raise BadFieldError("task", "must be a JSON object of strings, the fields of in.php")
    try:
        return fields.check(task)
    except BadFieldError as exc:
        raise BadFieldError("task", f"is refused: {exc}") from exc


class Book(Protocol):
    """Where probes are kept: the journal has these."""

    def begin_probe(self, request_id: str, at: float) -> None: ...
    def probe_submitted(self) -> None: ...
    def end_probe(self, request_id: str, answer: Mapping[str, Any]) -> None: ...
    def probe_answer(self, request_id: str) -> dict[str, Any] | None: ...


class MemoryBook:
    """The probes of a standby, which has no journal yet."""

    def __init__(self) -> None:
        self.probes: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self.submits = 0
        self.calls = 0  # of res.php

    def count_call(self) -> None:
        self.calls += 1

    def begin_probe(self, request_id: str, at: float) -> None:
        self.probes[request_id] = (at, None)

    def probe_submitted(self) -> None:
        self.submits += 1

    def end_probe(self, request_id: str, answer: Mapping[str, Any]) -> None:
        self.probes[request_id] = (self.probes[request_id][0], dict(answer))

    def probe_answer(self, request_id: str) -> dict[str, Any] | None:
        return self.probes.get(request_id, (0.0, None))[1]


class Prober:
    def __init__(self, config: Config, clock: Clock, book: Book, provider: Provider) -> None:
        self._config = config
        self._clock = clock
        self._book = book
        self._provider = provider
        self._running: tuple[str, asyncio.Task[dict[str, Any]]] | None = None

    @property
    def running(self) -> bool:
        return self._running is not None

    async def run(self, request: Request, identity: Mapping[str, str]) -> dict[str, Any]:
        """The same request joins the running probe, or reads its answer again: never a second bill."""
        known = self._book.probe_answer(request.request_id)
        if known is not None:
            return known
        if self._running is None:
            self._book.begin_probe(request.request_id, self._clock.now())
            work = asyncio.create_task(self._work(request, identity))
            self._running = (request.request_id, work)
        elif self._running[0] != request.request_id:
            raise ProbeRunningError(self._running[0])
        # A client that goes away must not take the probe with it.
        return await asyncio.shield(self._running[1])

    async def stop(self) -> None:
        if self._running is not None:
            self._running[1].cancel()
            await asyncio.gather(self._running[1], return_exceptions=True)

    async def _work(self, request: Request, identity: Mapping[str, str]) -> dict[str, Any]:
        began = self._clock.boot()
        try:
            fault = await self._within(request)
            answer = {
                "request_id": request.request_id,
                "outcome": "failed" if fault else "succeeded",
                "elapsed_s": round(self._clock.boot() - began, 3),
                "error": _describe(fault),
                **identity,
            }
            try:
                self._book.end_probe(request.request_id, answer)
            except sqlite3.Error as exc:
                logs.error("writing the journal failed", cause=str(exc))
            logs.info("probe ended", request_id=request.request_id, outcome=answer["outcome"], error=answer["error"])
            return answer
        finally:
            self._running = None

    async def _within(self, request: Request) -> Fault | None:
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._solve(request)
        except TimeoutError:
            return Fault(codes.TIMEOUT, "provider", f"not solved within {request.timeout_s:g} s (timeout_s)")
        except sqlite3.Error as exc:
            return Fault("JOURNAL", "worker", f"writing the journal: {exc}")

    async def _solve(self, request: Request) -> Fault | None:
        submitted = await self._submit(request.task)
        if isinstance(submitted, Fault):
            return submitted
        section = self._config.provider
        image = codes.is_image(request.task["method"])
        await asyncio.sleep(section.first_poll_image_s if image else section.first_poll_s)
        return await self._poll(submitted, request.expect)

    async def _submit(self, fields: Mapping[str, str]) -> str | Fault:
        while True:
            await asyncio.sleep(self._provider.submit_delay())
            answer = await self._provider.submit(fields)
            if answer.kind == "ok":
                self._book.probe_submitted()
                return answer.value
            if answer.kind != "error":
                return _transport_fault(answer, "in.php")
            verdict = self._provider.submit_verdict(answer.value)
            if verdict.retry_s is None or verdict.retry_s > self._config.provider.submit_timeout_s:
                return Fault(answer.value, verdict.error_class, "in.php refused the task")
            await asyncio.sleep(verdict.retry_s)

    async def _poll(self, provider_id: str, expect: str | None) -> Fault | None:
        while True:
            await asyncio.sleep(self._provider.poll_delay())
            answer = await self._provider.poll(provider_id)
            if answer.kind == "ok":
                return _compare(answer.value, expect)
            if answer.kind == "error":
                verdict = codes.poll_verdict(answer.value)
                # Nobody waits for the answer of a probe: an account that is refused is a finding now.
                if verdict.retry_s is None or verdict.error_class == "account":
                    return Fault(answer.value, verdict.error_class, "res.php refused the task")
            await asyncio.sleep(pace.jitter(self._config.provider.poll_interval_s))


def _describe(fault: Fault | None) -> dict[str, str] | None:
    if fault is None:
        return None
    return {"code": fault.code, "class": fault.error_class, "message": fault.message}


def _transport_fault(answer: Answer, call: str) -> Fault:
    if answer.kind == "unreachable":
        return Fault("UNREACHABLE", "network", f"connecting to {call}: {answer.value}")
    return Fault("BAD_ANSWER", error_class(answer), f"calling {call}: {answer.value}")


def _compare(solution: str, expect: str | None) -> Fault | None:
    if expect is None and solution:
        return None
    if expect is not None and solution.strip().casefold() == expect.casefold():
        return None
    return Fault("WRONG_ANSWER", "provider", "the solution is not the expected one")
