# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the provider answers, each task ends within its time, and so does a drain that waits for all of them.

A hostile provider answers each call of a worker in this process with bytes of its own choice, by a fixed seed.
SF_EXAMPLES sets how many answers of in.php are tried; those of res.php come on top.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import resource
import shutil
import tempfile
import time
import urllib.parse
import uuid
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.solver.fleet.plugins.module_utils import _provider_check
from ansible_collections.solver.fleet.plugins.module_utils._check import CheckError
from ansible_collections.solver.fleet.plugins.module_utils._errors import failure_of
from ansible_collections.solver.fleet.plugins.module_utils._wait import Clock
from solver_worker import config, engine, pace, provider
from solver_worker.journal import digest_of
from solver_worker.lifecycle import Worker
from solver_worker.probe import Request

EXAMPLES = int(os.environ.get("SF_EXAMPLES", "120"))
SEED = 20261129
LIMIT_S, CALL_S, INTERVAL_S = 2.0, 1.0, 0.1
# What a task may take: its limit, the call that is out when that ends, the grace of a silent provider, and a tick.
BOUND_S = LIMIT_S + CALL_S + LIMIT_S + 1.0
# This machine may be busy with other things.
SLACK_S = 4.0
MORE_MEMORY = 128 * 1024 * 1024
HOLD, ENDLESS, RESET = object(), object(), object()
Script = list[Any]  # bytes to write, seconds to wait, or one of the three above as the last


def deep(depth: int) -> str:
    return '{"status":1,"request":' + "[" * depth + "]" * depth + "}"


BODIES: tuple[Callable[[random.Random], bytes], ...] = tuple(
    (lambda rng, made=made: made if isinstance(made, bytes) else made(rng)) for made in (
        b"", b"\x00", b"OK|", b"OK", b"OK|\xff\xfe", b"OK|12\r\n\x1b[2J", b"\xef\xbb\xbfOK|1", b"<html>502</html>" * 99,
        b"ERROR_CAPTCHA_UNSOLVABLE", b"CAPCHA_NOT_READY", b"ERROR_NEW_ONE", b"ERROR_WRONG_CAPTCHA_ID", b"error",
        b"HTTP_500", b"ERROR_" + b"X" * 100_000, b"ERROR: 99999", "ERROR: \u0661".encode(), b"{", b"{}", b"[]", b"null",
        b'{"status":1}', b'{"status":1,"request":null}', b'{"status":1,"request":true}', b'{"status":1,"request":[]}',
        b'{"status":1,"request":NaN}', b'{"status":NaN,"request":"1"}', b'{"status":1,"request":1e999}',
        b'{"status":1,"request":-Infinity}', b'{"status":1,"request":' + b"9" * 5000 + b"}",
        b'{"status":' + b"9" * 300_000 + b',"request":"1"}', b'{"status":{"a":[]},"request":"1"}',
        b'{"status":1,"request":{"a":{"b":[1,null,1e400]}}}', b'{"status":1,"request":"\\ud800"}',
        b'{"status":1,"request":{"\\ud800":"\\udfff"}}', b'{"status":1,"request":"\\u0000\\u001b[2J"}',
        b'{"status":0,"request":"\\ud83d"}', b'{"status":0,"request":["ERROR"]}', b'{"status":1,"request":"1",' * 3,
        b'{"request":"1","request":2,"status":0,"status":1}', b'{"status":1,"request":"' + b"a" * 900_000 + b'"}',
        b'{"a":' + b"[" * 999_999, b"OK|" + b"1" * 65, b"OK|" + b"7" * 1_100_000, b"x" * (1 << 20),
        lambda rng: deep(rng.choice((100, 900, 1100, 5000, 100_000))).encode(),
        lambda rng: ('{"a":' * rng.choice((500, 3000, 90_000))).encode(),
        lambda rng: rng.randbytes(rng.choice((1, 10, 1000, 100_000))),
        lambda rng: b"OK|" + rng.randbytes(20),
        lambda rng: b"OK|" + str(rng.randrange(10**12)).encode(),
        lambda rng: json.dumps({"status": 1, "request": rng.randrange(10**9)}).encode(),
    ))
STATUSES = (200, 200, 200, 200, 201, 204, 206, 301, 302, 304, 307, 400, 403, 404, 407, 417, 429, 500, 502, 599, 999)
HEADERS = (
    b"", b"Content-Type: text/html\r\n", b"Content-Type: application/json; charset=punycode\r\n",
    b"Location: /in.php\r\n", b"Location: http://[::1\r\n",
    b"Set-Cookie: a=b; expires=never; \x7f\r\n", b"Retry-After: 1e999\r\n",
    b"X: \xff\xfe\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: br\r\n",
    b"Content-Encoding: deflate\r\n", b"Content-Encoding: x\r\n", b"Link: <<>>; rel=\r\n", b"broken header\r\n",
    b"X-Long: " + b"a" * 20_000 + b"\r\n", b"X-Many: 1\r\n" * 5000)


def packed(rng: random.Random) -> bytes:
    body = gzip.compress(rng.choice(BODIES)(rng), 1)
    cut = rng.choice((len(body), len(body), rng.randrange(len(body)), len(body) - 1))
    return body[:cut]


def bomb() -> bytes:
    """Many times what an answer may have, made without having it here."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _each in range(256)) + packer.flush()


BOMB = bomb()


def whole(rng: random.Random) -> Script:
    headers = rng.choice(HEADERS) if rng.random() < 0.4 else b""
    return framed(rng, rng.choice(STATUSES), headers, rng.choice(BODIES)(rng))


def zipped(rng: random.Random) -> Script:
    body = rng.choice((packed(rng), packed(rng), BOMB))
    return framed(rng, 200, b"Content-Encoding: gzip\r\n", body)


def framed(rng: random.Random, status: int, headers: bytes, body: bytes) -> Script:
    """A head, and a body whose length is told rightly, wrongly, twice, or not at all."""
    head = b"HTTP/1.1 %d X\r\n" % status + headers
    size = len(body)
    kind = rng.randrange(12)
    if kind < 5:
        return [head + b"Content-Length: %d\r\n\r\n" % size + body]
    lengths = (b"%d" % (size + 10), b"%d" % max(0, size - 3), b"-5", b"1" + b"0" * 400, b"x", b"%d, 7" % size, b"0x10")
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n" % size + body + b"\r\n0\r\n\r\n"
    broken = (chunk[:-3], b"zz\r\n", b"f" * 40 + b"\r\n", b"5;" + b"e" * 90_000 + b"\r\n", chunk[3:])
    return {
        5: [head + b"\r\n" + body],
        6: [head + b"Content-Length: " + rng.choice(lengths) + b"\r\n\r\n" + body],
        7: [head + chunked + chunk],
        8: [head + chunked + rng.choice(broken)],
        9: [head + b"Content-Length: %d\r\n" % size + chunked + chunk],
        10: [head + b"Content-Length: %d\r\n\r\n" % (size + 10) + body, HOLD],
        11: [head, 0.02, b"Content-Length: %d\r\n\r\n" % size, 0.02, body[:1], 0.02, body[1:], RESET],
    }[kind]


def never_whole(rng: random.Random) -> Script:
    """Answers that do not end by themselves, or never begin."""
    ok = b"HTTP/1.1 200 OK\r\n"
    drip = [part for byte in b"OK|1234567890" * 9 for part in (bytes([byte]), 0.05)]
    return rng.choice((
        [HOLD], [b"", RESET], [ok, HOLD], [ok + b"\r\n", *drip, HOLD], [ok + b"Content-Length: 117\r\n\r\n", *drip],
        [part for byte in ok * 9 for part in (bytes([byte]), 0.05)], [ok + b"\r\nOK|", ENDLESS],
        [ok + b"Transfer-Encoding: chunked\r\n\r\n1;", ENDLESS], [ok + b"X: ", ENDLESS],
        [part for _each in range(200) for part in (ok + b"", b"X-%d: 1\r\n" % _each, 0.01)],
        [b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, ok + b"Content-Length: 4\r\n\r\nOK|1"],
        [part for _each in range(300) for part in (b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.01)]))


def no_http(rng: random.Random) -> Script:
    return rng.choice((
        [b"OK|123"], [b"\r\n\r\n"], [b"SSH-2.0-x\r\n", HOLD], [rng.randbytes(300)], [b"HTTP/9.9 200 OK\r\n\r\nOK|1"],
        [b"HTTP/1.1 \xff\xff\r\n\r\n"], [b"HTTP/1.1 20000000000000000000 OK\r\n\r\n"], [b"HTTP/1.1 -1 OK\r\n\r\n"],
        [b"HTTP/1.1 099 OK\r\nContent-Length: 4\r\n\r\nOK|1"],
        [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nOK|1", HOLD],
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        [b"HTTP/1.1 200\r\n\r\nOK|1"], [b"HTTP/1.1 200 OK\nContent-Length: 4\n\nOK|1"],
        [b"HTTP/1.1 200 OK\r\n folded\r\n\r\nOK|1"]))


WAYS = (whole,) * 9 + (zipped, never_whole, no_http)


def answer(body: bytes) -> Script:
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body]


class Hostile:
    """A provider whose every answer is drawn from the seed, the task and the number of the call."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.polls: Script | None = None  # what each poll gets, after a good submit
        self._server: asyncio.Server

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()

    def script(self, path: str, fields: dict[str, str]) -> Script:
        task = fields.get("googlekey") or fields.get("id") or fields.get("action", "")
        self.calls[f"{path} {task}"] += 1
        rng = random.Random(f"{SEED} {path} {task} {self.calls[f'{path} {task}']}")
        if self.polls is not None:
            return self.polls if fields.get("action") == "get" else answer(b"OK|123")
        if path == "/in.php" and rng.random() < 0.5:  # then its polls get the others
            return answer(b"OK|%d" % (int(task or "0", 36) % 10**8))
        return rng.choice(WAYS)(rng)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            size = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
            fields = dict(urllib.parse.parse_qsl((await reader.readexactly(size)).decode("latin-1")))
            await self._play(self.script(head.split()[1], fields), reader, writer)
        writer.close()

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in script:
            if part is HOLD:
                await reader.read()
            elif part is RESET:
                writer.transport.abort()
            elif isinstance(part, float):
                await asyncio.sleep(part)
            else:
                while True:
                    writer.write(b"a" * 16384 if part is ENDLESS else part)
                    await writer.drain()
                    if part is not ENDLESS:
                        break
                    await asyncio.sleep(0.002)


class Bench:
    """A worker in this process: tasks in, final states out."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        assert worker.journal
        assert worker.engine
        self.journal, self.engine = worker.journal, worker.engine
        self.accepted: dict[str, float] = {}

    def add(self, number: int, method: str) -> None:
        key = task_id = f"w1-{number}"
        fields = {"method": method, "googlekey": format(number, "x").replace("x", "0")}
        at = self.worker.clock.now()
        self.journal.accept(task_id=task_id, key=key, digest=digest_of(fields), method=method,
                            payload=json.dumps(fields), at=at)
        self.engine.add(task_id, method, at)
        self.accepted[task_id] = at

    def states(self) -> Counter[str]:
        rows = {task_id: self.journal.by_id(task_id) for task_id in self.accepted}
        return Counter(row.state for row in rows.values() if row)

    def longest(self) -> float:
        rows = [self.journal._db.execute("SELECT max(final_at - accepted_at) FROM tasks").fetchone()]
        return float(rows[0][0])

    async def until(self, holds: Callable[[], Any], within: float) -> None:
        async with asyncio.timeout(within):
            while not holds():
                await asyncio.sleep(0.05)


@pytest.fixture
def hostile_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As strict as ever, but quicker: the account's limits are another test's."""
    monkeypatch.setattr(pace, "WINDOW_SUBMITS", 1_000_000)
    monkeypatch.setattr(pace, "CALLS_FREE", 10_000_000)
    monkeypatch.setattr(provider, "POLL_TIMEOUT_S", CALL_S)
    monkeypatch.setattr(provider, "SHORTEST_SUBMIT_S", 0.5)
    monkeypatch.setattr(engine, "RETRY_UNREACHABLE_S", 0.5)


@contextlib.asynccontextmanager
async def working(url: str, limit: float = LIMIT_S) -> AsyncIterator[Bench]:
    home = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    (home / "state").mkdir(mode=0o700)
    document = {
        "worker": {"name": "w1", "state_dir": str(home / "state")}, "control": {"socket": str(home / "c")},
        "data": {"port": 1}, "tasks": {"time_limit_s": limit},
        "provider": {"url": url, "submit_timeout_s": CALL_S, "first_poll_s": 0.05, "first_poll_image_s": 0.05,
                     "poll_interval_s": INTERVAL_S, "balance_interval_s": 1.0}}
    settings, wrong = config.parse(document)
    assert settings is not None, wrong
    worker = Worker(settings, "1.0", "1.0", "k" * 32)
    worker.open()
    keeper = asyncio.create_task(worker.keep_time())
    try:
        await worker.recover()
        yield Bench(worker)
    finally:
        await worker.stop()
        keeper.cancel()
        worker.close()
        shutil.rmtree(home)


def batches(count: int, size: int) -> Iterable[range]:
    return (range(start, min(count, start + size)) for start in range(0, count, size))


@pytest.mark.usefixtures("hostile_pace")
async def test_any_answer_of_the_provider(record_property: Callable[[str, object], None]) -> None:
    hostile = Hostile()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    async with working(await hostile.start()) as bench:
        probing = asyncio.create_task(probes(bench.worker))
        for numbers in batches(EXAMPLES, 120):
            for number in numbers:
                bench.add(number, "base64" if number % 3 == 0 else "userrecaptcha")
            await bench.until(lambda: not bench.engine.tasks, BOUND_S + SLACK_S)
        states, longest = bench.states(), bench.longest()
        answers = await probing
        totals = bench.journal.books().totals
    await hostile.stop()
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    calls = sum(hostile.calls.values())
    figures = f"{calls} answers: {dict(states)}, {Counter(answers)}, longest {longest:.1f} s, +{more >> 20} MiB"
    record_property("figures", figures)
    print(figures)
    assert set(states) <= {"succeeded", "failed", "uncertain", "expired"}
    assert sum(states.values()) == EXAMPLES == totals["accepted"]
    assert len(states) >= 3  # else most of this was not tried
    assert longest <= BOUND_S + SLACK_S
    assert more < MORE_MEMORY


async def probes(worker: Worker) -> list[str]:
    assert worker.prober
    out = []
    for number in range(max(5, EXAMPLES // 100)):
        task = {"method": "userrecaptcha", "googlekey": f"{number}p"}
        answer = await worker.prober.run(Request(uuid.uuid4().hex, task, None, timeout_s=1.0), {})
        json.dumps(answer, allow_nan=False).encode("utf-8")
        assert answer["elapsed_s"] < 1.0 + SLACK_S
        out.append(answer["outcome"])
    return out


POLLS: dict[str, Script] = {
    "deep": answer(deep(100_000).encode()), "half a pair": answer(b'{"status":1,"request":"\\ud800"}'),
    "not text": answer(b"OK|\xff"), "drip": [b"HTTP/1.1 200 OK\r\n\r\n", *[b"O", 0.05] * 400], "nothing": [b"", RESET],
    "502": [b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n"],
    "pause": answer(b"ERROR: 1005"), "not ready": answer(b"CAPCHA_NOT_READY"),
    "no calls left": answer(b"CAPCHA_NOT_READY")}


async def drained(polls: str) -> Counter[str]:
    """Drain a worker whose tasks are polled like this; return what became of them."""
    hostile = Hostile()
    hostile.polls = POLLS[polls]
    async with working(await hostile.start(), limit=1.0) as bench:
        if polls == "no calls left":  # that the account's rule would grant
            bench.worker.provider.allowance = lambda: 0  # type: ignore[method-assign]
        for number in range(3):
            bench.add(number, "userrecaptcha")
        bench.worker.put_drain({"owner": "me", "mode": "complete"})
        with contextlib.suppress(TimeoutError):
            await bench.until(lambda: bench.worker.state == "drained", 1.0 + CALL_S + 1.0 + 1.0 + SLACK_S)
        states = bench.states()
    await hostile.stop()
    return states


@pytest.mark.usefixtures("hostile_pace")
async def test_a_complete_drain_ends() -> None:
    ends = await asyncio.gather(*map(drained, POLLS))
    assert dict(zip(POLLS, ends, strict=True)) == {polls: {"failed": 3} for polls in POLLS}


# --- the provider's own check, which solve_check makes without any worker ---

SOLVE_S = 2.0


class Quick(Clock):
    """Ask at once where a person's patience would be needed."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.02))


def checked(url: str, balance: bool, number: int) -> tuple[str, float]:
    """Return how the check ended; anything but a CheckError is a crash, and goes to the caller."""
    asked = _provider_check.Provider(_provider_check.ProviderAccess(url, "k" * 32, SOLVE_S), requests, Quick())
    began = time.monotonic()
    try:
        if balance:
            assert asked.balance().is_finite()
        else:
            asked.solve({"method": "userrecaptcha", "googlekey": f"{number}c"}, None)
        ended = "solved"
    except CheckError as error:
        ended = error.code
        shown = json.dumps(failure_of(error), ensure_ascii=False, allow_nan=False)
        assert shown.isprintable()
        assert len(shown) < 4000
    return ended, time.monotonic() - began


async def test_any_answer_of_the_provider_to_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_provider_check, "CALL_TIMEOUT_S", CALL_S)
    hostile = Hostile()
    url = await hostile.start()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(16) as pool:
        asked = [loop.run_in_executor(pool, checked, url, number % 4 == 0, number) for number in range(EXAMPLES)]
        ends = await asyncio.gather(*asked)
    await hostile.stop()
    codes, longest = Counter(code for code, _unused in ends), max(seconds for _unused, seconds in ends)
    print(f"{sum(hostile.calls.values())} answers: {dict(codes)}, longest {longest:.1f} s")
    assert set(codes) <= {"solved", "balance_failed", *(f"provider_{why}" for why in (
        "answer", "failed", "refused", "timeout", "unreachable"))}
    assert longest <= SOLVE_S + CALL_S + SLACK_S
