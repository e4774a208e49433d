# SPDX-License-Identifier: GPL-3.0-or-later
"""A client cannot stop a worker, with or without its token, and nothing of what it sends reaches a log."""

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from harness import KEY, Worker, World, eventually, task
from solver_worker import control, fields, listener, logs, problem
from solver_worker.drain import BadFieldError
from solver_worker.listener import Limits, Listener

SECRET = "pa55word"
TOKEN = "s3cret-t0ken"


# -- raw requests


async def raw(port: int, sent: bytes, within: float = 10.0) -> bytes:
    """What comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), within)
    finally:
        writer.close()
    return b""


def post(body: bytes, kind: str = "application/json", more: str = "", key: str = "k") -> bytes:
    head = (
        f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: {key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


def told(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _unused, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else {}


# -- the body


CHARSETS = ["punycode", "utf-7", "utf-16", "idna", "latin-1", "unicode_escape", "x" * 300]


async def test_only_utf8_is_read_and_the_control_socket_answers_meanwhile(world: World) -> None:
    worker = await world.worker().start()
    body = json.dumps(task(1, body="ü-" + "a" * 200_000), ensure_ascii=False).encode()
    for charset in CHARSETS:
        asked = asyncio.create_task(raw(worker.port, post(body, f"application/json; charset={charset}"), 60))
        began = time.monotonic()
        while not asked.done():
            await worker.status()
            await asyncio.sleep(0)
        assert time.monotonic() - began < 5
        status, document = told(await asked)
        assert (status, document["code"]) == (415, "not_json")
    for good in ("utf-8", "UTF-8", '"utf-8"', "utf8"):
        status, document = told(await raw(worker.port, post(body, f"application/json; charset={good}")))
        assert status in (200, 202), document


def took(text: str) -> float:
    began = time.perf_counter()
    with contextlib.suppress(BadFieldError, ValueError):
        fields.check(fields.parse(text))
    return time.perf_counter() - began


def test_no_shape_of_a_body_is_slow_to_read() -> None:
    """A general parser takes ten seconds for some of these, in one call that nothing interrupts."""
    size = 8 << 20
    shapes = {
        "one string": '{"method":"' + "a" * size + '"}',
        "escapes": '{"method":"' + "\\u0041" * (size // 6) + '"}',
        "names": "{" + ",".join(f'"{n:x}":""' for n in range(size // 12)) + "}",
        "lists": '{"method":' + "[]," * (size // 3),
        "top": "[" + "[]," * (size // 3) + "[]]",
        "deep": '{"method":' + "[" * size,
        "digits": '{"method":' + "1" * size,
        "blanks": "{" + " " * size,
    }
    slow = {name: seconds for name, text in shapes.items() if (seconds := min(took(text), took(text))) > 0.5}
    assert not slow


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[]", "body"),
        ("", "body"),
        ('"x"', "body"),
        ('{"method": 1}', "method"),
        ('{"a": {"method": "x"}}', "a"),
        ('{"a": null}', "a"),
        ('{"a": "1", "a": "2"}', "a"),
        ("{" + ",".join(f'"f{n}": ""' for n in range(fields.MOST + 1)) + "}", "body"),
    ],
)
def test_what_is_no_flat_object_is_refused_by_field(text: str, field: str) -> None:
    with pytest.raises(BadFieldError) as caught:
        fields.parse(text)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text", ["{", '{"a"', '{"a":"b"', '{"a":"b",}', '{"a":"b"} x', '{"a" "b"}', "{,}", '{"a":"\n"}']
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises((fields.NotJsonError, json.JSONDecodeError)):
        fields.parse(text)


def test_a_flat_object_is_read_as_any_parser_would() -> None:
    text = '\n{ "method" :\t"x","b":"\\u00e9\\ud83d\\ude00\\n" ,"c":""}\r\n'
    assert fields.parse(text) == json.loads(text)
    assert fields.parse(" {} ") == {}


# -- the fields

RESERVED_SPELLINGS = [
    *fields.RESERVED, "soft.id", "soft id", "soft[id", " key", "   json", "key[]", "key[a]", "key[a][b]", "soft_id[0]",
    "soft.id[x]", " soft id", "KEY", "Soft_Id", "soft[id]"[:7], "pingback[", "pingback[0]",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(RESERVED_SPELLINGS) - {"pingback["}))
def test_a_reserved_field_is_refused_in_every_spelling(name: str) -> None:
    with pytest.raises(BadFieldError, match="own business"):
        fields.check({"method": "x", name: "1"})


@pytest.mark.parametrize(
    "name", ["", "a\0b", "a\nb", "a\x7f", "\ud800", "ключ", "a" * 101, "soft\x00id", "\tkey", "\uff4b\uff45\uff59"]
)
def test_a_name_that_is_none_is_refused_and_shown_in_ascii(name: str) -> None:
    with pytest.raises(BadFieldError) as caught:
        fields.check({"method": "x", name: "1"})
    assert caught.value.field.isascii()
    assert caught.value.field.isprintable()


@pytest.mark.parametrize(
    "name", ["data-s", "min_score", "soft", "id", "keys", "a.b", "rows[]", "json_data", "proxy key"]
)
def test_any_other_name_is_the_provider_s_business(name: str) -> None:
    assert fields.check({"method": "x", name: "é\n\0"}) == {"method": "x", name: "é\n\0"}


def test_half_a_character_is_refused_at_the_door() -> None:
    with pytest.raises(BadFieldError, match="half a character"):
        fields.check({"method": "x", "proxy": "\udc80"})


async def test_what_the_provider_cannot_be_sent_is_refused_and_starves_nobody(world: World) -> None:
    world.sandbox("--solve", "default=0.2:0.2")
    worker = await world.worker().start()
    for number, name in enumerate(["a\\u0000", "\\ud800", "soft.id"]):
        body = f'{{"method": "userrecaptcha", "{name}": "x"}}'.encode()
        assert told(await raw(worker.port, post(body, key=f"k{number}")))[0] == 400
    status, problem = await worker.control(
        "POST", "/v1/probe", {"request_id": "p", "task": {"method": "x", "key[": "1"}}
    )
    assert status == 200 or problem["field"] == "task"
    status, problem = await worker.control(
        "POST", "/v1/probe", {"request_id": "q", "task": {"method": "x", "key[]": "1"}}
    )
    assert (status, problem["field"]) == (400, "task")
    assert (await worker.post("good", task(1), wait=10))[1]["state"] == "succeeded"


# -- what a log may hold


@pytest.fixture
async def guarded(world: World) -> Worker:
    token = world.home / "token"
    token.write_text(TOKEN)
    return await world.worker(data={"token_file": str(token)}, log={"level": "debug"}).start()


async def test_no_raw_request_reaches_a_log_or_an_answer(guarded: Worker) -> None:
    bearer = f"Authorization: Bearer {TOKEN}\r\n"
    broken = [
        f"GET /healthz HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\x01\r\n\r\n".encode(),
        f"GET /{TOKEN} HTTP/9.9\r\n\r\n".encode(),
        f"{TOKEN} {SECRET}\r\n\r\n".encode(),
        f"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: {SECRET}\xff\r\n\r\n".encode("latin-1"),
        f"GET /healthz HTTP/1.1\r\n{TOKEN}\r\n\r\n".encode(),
        f"GET /v1/tasks/{TOKEN} HTTP/1.1\r\nX: {'x' * 20_000}\r\n\r\n".encode(),
        f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n{bearer}"
        f'Transfer-Encoding: chunked\r\n\r\n5\r\n{{"a":\r\n{SECRET}\r\n'.encode(),
        f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n{bearer}"
        f"Connection: close\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\n{SECRET}".encode(),
        post(f'{{"method": "x", "{SECRET}\\u0001": "1"}}'.encode(), more=bearer),
        post(f'{{"method": "x", "proxy": "{SECRET}'.encode(), more=bearer),
        post(f'"{SECRET}"'.encode(), kind=f"text/{SECRET}", more=bearer),
    ]
    for request in broken:
        answer = await raw(guarded.port, request)
        assert answer.split()[1].startswith(b"4"), answer
        assert TOKEN.encode() not in answer
        if b"u0001" not in request:
            assert SECRET.encode() not in answer
        assert b"X-Solver-Worker: w1" in answer
        assert b"application/problem+json" in answer
    assert (await guarded.status())["state"] == "running"
    await guarded.term()
    for secret in (TOKEN, SECRET, KEY, "Bearer"):
        assert secret not in guarded.log
    assert "Traceback" not in guarded.log


async def test_any_authorization_but_the_token_is_401(guarded: Worker) -> None:
    for given in (b"Bearer \xff", b"\xff\xfe", b"Bearer " + TOKEN.encode() + b"\xff", b"Basic eDp5", b""):
        request = b"GET /v1/tasks/w1-0 HTTP/1.1\r\nHost: x\r\nAuthorization: " + given + b"\r\n\r\n"
        status, document = told(await raw(guarded.port, request))
        assert (status, document["code"]) == (401, "unauthorized")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.setFormatter(logs.JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


def test_of_a_library_s_words_only_place_and_kind_are_written() -> None:
    kept = Kept()
    log = logging.getLogger("aiohttp.server")
    log.addHandler(kept)
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("bad %s", SECRET)
    finally:
        log.removeHandler(kept)
    (line,) = kept.lines
    assert line["event"] == "aiohttp.server logged"
    assert re.fullmatch(r"ValueError at test_clients\.py:\d+", line["cause"])
    assert SECRET not in json.dumps(line)


def test_a_line_that_repeats_is_counted() -> None:
    now = [0.0]
    kept = Kept()
    kept.addFilter(logs.Repeats(lambda: now[0]))
    logs.LOG.addHandler(kept)
    try:
        for number in range(500):
            logs.warning("flood", number=number)
        logs.warning("another")
        now[0] = logs.WINDOW_S
        logs.warning("flood")
        for number in range(500):
            logs.info("task ended", number=number)
    finally:
        logs.LOG.removeHandler(kept)
    warned = [line for line in kept.lines if line["level"] == "warning"]
    assert [line["event"] for line in warned] == ["flood"] * logs.BURST + ["another", "flood"]
    assert warned[-1]["left_out"] == 500 - logs.BURST


# -- connections


@pytest.fixture
async def small() -> AsyncIterator[tuple[Listener, int]]:
    """A listener with tight bounds around a small application."""
    app = web.Application(middlewares=[problem.middleware])

    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async def quick(_request: web.Request) -> web.Response:
        return web.Response(text="x" * 1000)

    async def read(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await problem.read_text(request))))

    app.router.add_get("/slow", slow)
    app.router.add_get("/quick", quick)
    app.router.add_post("/read", read)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    made = Listener("test", runner, Limits(connections=20, head_s=0.5, idle_s=1.0, answer_s=1.0), {})
    sockets = await listener.bind("127.0.0.1", 0)
    made.listen(sockets)
    yield made, sockets[0].getsockname()[1]
    made.close()
    await runner.cleanup()


QUICK = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "dripped"),
    [
        (b"", b""),
        (b"GET /quick HT", b""),
        (b"GET /quick HTTP/1.1\r\n", b"X: y\r\n"),
        (QUICK + b"GET", b""),
        (QUICK, b""),
    ],
    ids=["nothing", "half a line", "a dripping head", "half of the next", "silence after an answer"],
)
async def test_a_connection_without_a_request_ends(small: tuple[Listener, int], sent: bytes, dripped: bytes) -> None:
    _listener, port = small
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)

    async def drip() -> None:
        while True:
            writer.write(dripped)
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)
    dripping.cancel()
    writer.close()


async def test_the_oldest_silent_connection_makes_room(small: tuple[Listener, int]) -> None:
    made, port = small
    streams = [await asyncio.open_connection("127.0.0.1", port) for _unused in range(60)]
    for _unused in range(10):
        answers = await asyncio.gather(*(raw(port, LAST) for _unused in range(3)))
        assert all(b"200 OK" in answer for answer in answers)
        assert len(made._all) <= 20
    for _reader, writer in streams:
        writer.close()


async def test_a_request_in_hand_is_never_cut_and_others_wait_in_the_kernel(small: tuple[Listener, int]) -> None:
    made, port = small
    slow = [await asyncio.open_connection("127.0.0.1", port) for _unused in range(20)]
    for _reader, writer in slow:
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await eventually(lambda: len(made._all) == 20 and not made._silent)
    waiting = asyncio.create_task(raw(port, LAST))
    await eventually(lambda: made._paused)
    assert all(not reader.at_eof() for reader, _writer in slow)
    slow.pop()[1].close()
    assert b"200 OK" in await waiting
    for _reader, writer in slow:
        writer.close()


async def test_an_answer_that_nobody_takes_is_not_waited_for(small: tuple[Listener, int]) -> None:
    made, port = small
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _unused in range(60):
        writer.write(QUICK * 200)
        if not made._all:
            await asyncio.sleep(0)

    def gone() -> bool:
        return not made._all

    await eventually(gone, within=30)
    writer.close()


async def test_a_body_that_does_not_come_is_not_waited_for(
    small: tuple[Listener, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem, "BODY_S", 0.3)
    request = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\nabc"
    status, document = told(await raw(small[1], request, 30))
    assert (status, document["code"]) == (408, "too_slow")


def test_as_many_connections_as_descriptors_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener.resource, "getrlimit", lambda _which: (1024, 1024))
    assert listener.affordable(3000) == 1024 - listener.KEPT_DESCRIPTORS
    assert listener.affordable(50) == 50
    monkeypatch.setattr(listener.resource, "getrlimit", lambda _which: (64, 64))
    assert listener.affordable(3000) == listener.FEWEST


async def test_a_thousand_idle_connections_leave_both_sockets_answering(world: World) -> None:
    worker = world.worker()
    plain = worker.command
    worker.command = lambda *given: ["sh", "-c", 'ulimit -n 512; exec "$@"', "sh", *plain(*given)]  # type: ignore[method-assign]
    await worker.start()
    streams = []
    for _unused in range(1000):
        with contextlib.suppress(ConnectionError):
            streams.append(await asyncio.open_connection("127.0.0.1", worker.port))
    for number in range(5):
        assert (await worker.post(f"k{number}", task(number)))[0] == 202
        assert (await worker.drain())[0] in (200, 202)
        assert (await worker.resume())[0] == 200
    descriptors = len(list(Path(f"/proc/{worker.process.pid}/fd").iterdir())) if worker.process else 0
    assert descriptors < 300
    for _reader, writer in streams:
        writer.close()
    assert len(worker.log) < 100_000


async def test_the_control_socket_is_bounded_too(world: World) -> None:
    worker = await world.worker().start()
    streams = [await asyncio.open_unix_connection(str(worker.socket)) for _unused in range(300)]
    assert (await worker.status())["state"] == "running"
    for _reader, writer in streams:
        writer.close()
    assert control.MAX_BODY == 1 << 20


# -- the journal's pages


async def test_a_password_leaves_the_journal_s_files_when_its_task_is_submitted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sandbox("--solve", "default=0.2:0.2")
    worker = await world.worker().start(SF_TIDY="0.5")
    for number in range(30):
        await worker.post(f"k{number}", task(number, proxy=f"login:{SECRET}@10.0.0.1:80", body="b" * 3000))

    def clean() -> bool:
        state = worker.home / "state"
        return not any(SECRET.encode() in item.read_bytes() for item in state.iterdir() if item.is_file())

    await eventually(clean)
    assert (await worker.status())["totals"]["accepted"] == 30
    await worker.kill()
    assert clean()
