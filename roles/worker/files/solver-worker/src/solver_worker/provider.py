# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider's in.php and res.php, and what we know of the account behind them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp

from . import codes, logs, pace
from .clock import Clock, rfc3339
from .codes import Answer, Verdict
from .config import ProviderSection

MAX_ANSWER_BYTES = 1 << 20
POLL_TIMEOUT_S = 30.0
# A submit whose task has less time left is not cut off for that: it would leave the outcome unknown.
SHORTEST_SUBMIT_S = 5.0
PARALLEL_CALLS = 100
_BOUNDED: dict[str, Any] = {"auto_decompress": False, "headers": {"Accept-Encoding": "gzip"}}


class Provider:
    def __init__(self, config: ProviderSection, key: str, clock: Clock) -> None:
        self._config = config
        self._key = key
        self._clock = clock
        self._submit_block = pace.Block()
        self._poll_block = pace.Block()
        self._window = pace.SubmitWindow()
        self._sessions: list[aiohttp.ClientSession] = []
        self.captchas = 0
        self.calls = 0
        self.on_call: Any = lambda: None
        self.balance: str | None = None
        self.balance_at: float | None = None
        self._ok: bool | None = None
        self._last_ok_at: float | None = None
        self._last_error: dict[str, Any] | None = None
        self._captchas_at_balance = -1

    async def open(self) -> None:
        if self._sessions:
            return
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_connection_stands)
        # A kept connection may be dead before we write to it, and then nobody knows whether a submit
        # arrived; so each submit has a connection of its own, and polls share theirs.
        self._submitter = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=PARALLEL_CALLS),
            trace_configs=[trace],
            cookie_jar=aiohttp.DummyCookieJar(),
            **_BOUNDED,
        )
        self._poller = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=PARALLEL_CALLS),
            timeout=aiohttp.ClientTimeout(total=POLL_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            **_BOUNDED,
        )
        self._sessions = [self._submitter, self._poller]

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()

    # -- may we call?

    def remember_submits(self, ages: list[float]) -> None:
        """Submits of an earlier process count too: the provider does not see our restarts."""
        for age in sorted(ages, reverse=True):
            self._window.count(self._clock.boot() - age)

    def submit_delay(self) -> float:
        now = self._clock.boot()
        return max(self._submit_block.delay(now), self._window.delay(now))

    def poll_delay(self) -> float:
        blocked = self._poll_block.delay(self._clock.boot())
        return blocked or (0.0 if self.allowance() > 0 else self._config.poll_interval_s)

    def allowance(self) -> int:
        return pace.allowance(self.captchas, self.calls)

    # -- the calls

    async def submit(self, fields: Mapping[str, str], within: float = math.inf) -> Answer:
        """Counts into the window before it is sent: a call that fails was a call."""
        self._window.count(self._clock.boot())
        seen = SimpleNamespace(connected=False)
        data = {**fields, "key": self._key, "json": "0"}
        bound = aiohttp.ClientTimeout(total=min(self._config.submit_timeout_s, max(within, SHORTEST_SUBMIT_S)))
        try:
            async with self._submitter.post(
                self._config.url + "/in.php", data=data, allow_redirects=False, trace_request_ctx=seen, timeout=bound
            ) as response:
                answer = codes.read_submit(response.status, await _read_text(response))
        except Exception as exc:  # noqa: BLE001 - whatever an answer breaks, the task must hear of it
            kind: codes.Kind = "unclear" if seen.connected else "unreachable"
            answer = Answer(kind, type(exc).__name__)
        if answer.kind == "ok":
            self.captchas += 1
        self._note(answer, self.submit_verdict(answer.value) if answer.kind == "error" else None)
        return answer

    async def poll(self, provider_id: str) -> Answer:
        answer = await self._res({"action": "get", "id": provider_id}, codes.read_poll)
        self._note(answer, codes.poll_verdict(answer.value) if answer.kind == "error" else None)
        return answer

    async def refresh_balance(self) -> None:
        answer = await self._res({"action": "getbalance"}, codes.read_balance)
        self._captchas_at_balance = self.captchas
        if answer.kind == "ok":
            self.balance, self.balance_at = answer.value, self._clock.now()
        self._note(answer, codes.poll_verdict(answer.value) if answer.kind == "error" else None)

    def balance_is_worth_a_call(self) -> bool:
        """It costs a call of the account's allowance, so only when money may have moved."""
        moved = self.captchas != self._captchas_at_balance
        return moved and self.poll_delay() <= 0 and self.allowance() > pace.CALLS_TIGHT

    async def _res(self, fields: Mapping[str, str], reader: Any) -> Answer:
        self.calls += 1
        self.on_call()
        data = {**fields, "key": self._key, "json": "0"}
        try:
            async with self._poller.post(self._config.url + "/res.php", data=data, allow_redirects=False) as response:
                answer: Answer = reader(response.status, await _read_text(response))
        except Exception as exc:  # noqa: BLE001 - as above
            answer = Answer("unreachable", type(exc).__name__)
        return answer

    def submit_verdict(self, code: str) -> Verdict:
        return codes.submit_verdict(code, self._config.dialect)

    # -- what we know

    def _note(self, answer: Answer, verdict: Verdict | None) -> None:
        now = self._clock.boot()
        if verdict is not None and verdict.block_s:
            (self._poll_block if verdict.block_polls else self._submit_block).extend(now + verdict.block_s)
            if verdict.block_polls:
                self._submit_block.extend(now + verdict.block_s)
            logs.warning("provider asks for a pause", code=answer.value, seconds=verdict.block_s)
        # An answer about one task is still an answer: the provider works.
        self._ok = answer.kind in ("ok", "not_ready") or (verdict is not None and verdict.error_class == "task")
        if self._ok:
            self._last_ok_at = self._clock.now()
            return
        self._last_error = {
            "code": answer.value,
            "class": verdict.error_class if verdict else error_class(answer),
            "at": rfc3339(self._clock.now()),
        }

    def describe(self) -> dict[str, Any]:
        return {
            "ok": self._ok,
            "last_ok_at": rfc3339(self._last_ok_at),
            "balance": self.balance,
            "balance_at": rfc3339(self.balance_at),
            "last_error": self._last_error,
        }


def error_class(answer: Answer) -> codes.Class:
    return "network" if answer.kind == "unreachable" or not answer.value.startswith("HTTP_") else "provider"


async def _connection_stands(_session: Any, context: Any, _params: Any) -> None:
    context.trace_request_ctx.connected = True


async def _read_text(response: aiohttp.ClientResponse) -> str:
    """The answer's text; what is none, or too long for one, reads as empty, which is not of the protocol either."""
    body = await response.content.read(MAX_ANSWER_BYTES + 1)
    while len(body) <= MAX_ANSWER_BYTES:
        more = await response.content.read(MAX_ANSWER_BYTES + 1 - len(body))
        if not more:
            return _text(body, response.headers.get("Content-Encoding", ""))
        body += more
    return ""


def _text(body: bytes, coding: str) -> str:
    """Unpacked here, and never to more than an answer may have: a small body may unpack to gigabytes."""
    try:
        if coding.lower() in ("gzip", "x-gzip"):
            unpacker = zlib.decompressobj(wbits=31)
            body = unpacker.decompress(body, MAX_ANSWER_BYTES)
            return body.decode("utf-8") if unpacker.eof else ""
        return body.decode("utf-8")
    except (ValueError, zlib.error):
        return ""
