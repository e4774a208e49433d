# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a client sends to either API: a documented answer, nothing of it in a log, and a worker that goes on.

A real worker in this process, its provider not there. SF_EXAMPLES sets how many requests each test sends to each API;
the seeds are fixed.
"""

import asyncio
import json
import logging
import os
import random
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from harness import KEY, balanced
from solver_worker import config, control, lifecycle, listener, logs, opening, pace, problem, serve

REQUESTS = int(os.environ.get("SF_EXAMPLES", "500"))
BATCH = 50
TOKEN = "t0ken-of-the-fuzzer"
SECRET = "pa55word-of-the-fuzzer"
HERE = Path(__file__).resolve()
API = HERE.parents[5] / "docs" / "openapi" / "control-v1.yaml"
# A connection of the fuzzer that is not ended by then was forgotten by the worker.
ENDS_S = 30.0
DATA_STATUS = {200, 202, 204, 400, 401, 404, 405, 408, 409, 413, 415, 417, 421, 422, 503}
CONTROL_STATUS = {200, 202, 204, 400, 403, 404, 405, 408, 409, 413, 415, 417, 503}
# Lines that tell of a fault of ours, not of the client's.
FAULTS = {
    "request failed",
    "a connection broke",
    "the event loop met an error",
    "keeping time failed",
    "failed",
    "a loop of the engine broke; it begins anew",
    "a call broke; its task goes on in the next process",
}


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logs.JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Subject:
    """A worker whose loop runs in a thread, with short times so that a fuzzer need not wait."""

    def __init__(self, home: Path) -> None:
        (home / "key").write_text(KEY)
        (home / "token").write_text(TOKEN)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.socket = str(home / "c.sock")
        made, problems = config.parse(
            {
                "worker": {"name": "w1", "state_dir": str(home / "state")},
                "control": {"socket": self.socket},
                "data": {"port": self.port, "token_file": str(home / "token"), "max_body_bytes": 4096},
                "provider": {"url": "http://127.0.0.1:1", "api_key_file": str(home / "key")},
                "tasks": {"time_limit_s": 1.0, "result_ttl_s": 1.0, "key_ttl_s": 1.0},
            }
        )
        assert made is not None, problems
        made.state_dir.mkdir()
        self.worker = lifecycle.Worker(made, "1.2.0", "1.2.0", KEY)
        self.sent = 0
        self.statuses: dict[int, int] = {}
        self.known = "w1-0"  # the id of a task that was taken
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.call(self._up())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _up(self) -> None:
        asyncio.get_running_loop().set_exception_handler(logs.loop_failed)
        self.opened = serve.Opened()
        sock = serve.control_socket(Path(self.socket))
        app = control.application(self.worker)
        (await self.opened.prepare("control", app, serve.CONTROL_LIMITS, {})).listen([sock])
        self.timekeeper = asyncio.create_task(self.worker.keep_time())
        await serve._come_up(self.worker, TOKEN, self.opened)

    async def _down(self) -> None:
        await self.worker.stop()
        self.timekeeper.cancel()
        await self.opened.close()
        self.worker.close()

    def end(self) -> None:
        self.call(self._down())
        self._loop.call_soon_threadsafe(self._loop.stop)

    # -- requests

    def _connect(self, api: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX if api == "control" else socket.AF_INET)
        sock.settimeout(ENDS_S)
        sock.connect(self.socket if api == "control" else ("127.0.0.1", self.port))
        return sock

    def exchange(self, api: str, requests: list[bytes]) -> list[bytes]:
        """All at once; each connection must be ended by the worker."""
        sockets = [self._connect(api) for _unused in requests]
        try:
            for sock, request in zip(sockets, requests, strict=True):
                try:
                    sock.sendall(request)
                except ConnectionError:
                    continue
            self.sent += len(requests)
            return [_all_of(sock) for sock in sockets]
        finally:
            for sock in sockets:
                sock.close()

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        status, _headers, document = parsed(self.exchange("control", [head.encode() + body])[0])
        return status, document


def _all_of(sock: socket.socket) -> bytes:
    received = b""
    try:
        while part := sock.recv(65536):
            received += part
    except ConnectionError:
        pass
    return received


def parsed(answer: bytes) -> tuple[int, bytes, Any]:
    head, _unused, rest = answer.partition(b"\r\n\r\n")
    status = int(re.match(rb"HTTP/\d\.\d (\d{3}) ", head)[1])  # type: ignore[index]
    if status == 100:
        return parsed(rest) if rest else (100, head, None)
    length = re.search(rb"(?i)content-length: (\d+)", head)
    body = rest[: int(length[1])] if length else b""
    return status, head, json.loads(body) if body and b"\r\nContent-Type: text/plain" not in head else None


@pytest.fixture(scope="module")
def log() -> Iterator[Kept]:
    kept = Kept()
    root = logging.getLogger()
    root.addHandler(kept)
    logs.LOG.setLevel(logging.DEBUG)
    yield kept
    root.removeHandler(kept)
    logs.LOG.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def subject(log: Kept) -> Iterator[Subject]:
    patch = pytest.MonkeyPatch()
    tight = {"head_s": 0.2, "idle_s": 0.2, "answer_s": 5.0}
    patch.setattr(opening, "Limits", partial(listener.Limits, **tight))
    patch.setattr(serve, "CONTROL_LIMITS", listener.Limits(connections=64, **tight))
    patch.setattr(listener, "SWEEP_S", 0.05)
    patch.setattr(listener, "LINGER_S", 0.2)
    patch.setattr(problem, "BODY_S", 0.2)
    patch.setattr(lifecycle, "TIDY_EVERY_S", 1.0)
    patch.setattr(pace, "WINDOW_SUBMITS", 10_000)
    home = Path(tempfile.mkdtemp(prefix="sf-", dir="/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"))
    made = Subject(home)
    yield made
    made.end()
    shutil.rmtree(home)
    patch.undo()


@pytest.fixture(scope="module")
def check(subject: Subject, log: Kept) -> Any:
    """What must hold after any batch; returned as a function so that each batch is judged by itself."""
    schema = yaml.safe_load(API.read_text(encoding="utf-8")) if API.exists() else None

    def judge(api: str, requests: list[bytes], answers: list[bytes]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            if answer:
                judge_answer(api, request, answer, subject)
                if schema and api == "control":
                    judge_by_description(schema, request, answer)
        began = time.monotonic()
        status, document = subject.ask("GET", "/v1/status")
        assert time.monotonic() - began < 5, "the control socket was held"
        assert (status, document["failure"], document["refusal"]) == (200, None, None)
        assert document["state"] in ("running", "draining", "drained")
        assert balanced(document["totals"], document["tasks"]["open"])
        if schema:
            ref = {"$ref": "#/components/schemas/Status"}
            jsonschema.Draft202012Validator({**schema, **ref}).validate(document)
        subject.ask("DELETE", "/v1/drain?owner=fuzzer&steal=true")
        lines, log.lines = log.lines, []
        for line in lines:
            assert json.loads(line)["event"] not in FAULTS, line
            # Who drains, by which name, is what the control socket's log is for.
            for secret in (TOKEN, KEY, *([SECRET] if api == "data" else [])):
                assert secret not in line

    return judge


def judge_by_description(schema: Any, request: bytes, answer: bytes) -> None:
    """A call that the description has, answered by HTTP itself as it may be, or as the description says."""
    method, target, *_rest = [*request.decode("latin-1").split(" "), "", ""]
    call = schema["paths"].get(target.partition("?")[0], {}).get(method.lower())
    status, _head, document = parsed(answer)
    if call is None or status in (100, 417) or (document or {}).get("code") == "bad_request":
        return
    described = call["responses"].get(str(status))
    assert described is not None, (method, target, status, document)
    if "$ref" in described:
        described = schema["components"]["responses"][described["$ref"].rpartition("/")[2]]
    for media in described.get("content", {}).values():
        jsonschema.Draft202012Validator({**schema, **media["schema"]}).validate(document)


def judge_answer(api: str, request: bytes, answer: bytes, subject: Subject) -> None:
    status, head, document = parsed(answer)
    subject.statuses[status] = subject.statuses.get(status, 0) + 1
    if status == 100:
        return
    assert status in (DATA_STATUS if api == "data" else CONTROL_STATUS), request
    assert api == "control" or b"X-Solver-Worker: w1" in head, answer
    if status >= 400 and document is not None and b"/json" not in head:
        assert b"application/problem+json" in head, answer
        assert re.fullmatch("[a-z][a-z_]*", document["code"]), document
        assert document["status"] == status
    if status == 202 and api == "data":
        subject.known = document["id"]
    assert TOKEN.encode() not in answer


# -- requests as a client with a fault makes them

ODD = [
    "",
    "x",
    "\0",
    "\u0001",
    "\ud800",
    "é",
    "💥",
    " ",
    "a" * 300,
    "null",
    "0",
    "-1",
    "nan",
    SECRET,
    "\u202e",
    "%00",
    "'",
]
NAMES = [
    "method", "key", "soft.id", "soft id", "key[]", " json", "pageurl", "owner", "mode", "lease_s", "grace_s", "expect",
    "deadline_s", "on_expire", "on_deadline", "reason", "steal", "request_id", "task", "timeout_s", *ODD,
]  # fmt: skip
SCALARS = [
    *ODD, None, True, False, 0, 1, -1, 5, 86_401, 10**400, 1.5, -0.0, float("nan"), float("inf"), 1e308, "complete",
    "handover", "verify", "resume", "hold", "userrecaptcha", "base64", "w1-0",
]  # fmt: skip
TASKS: list[Any] = [
    {"method": "userrecaptcha", "googlekey": "k", "pageurl": "https://shop.test/"},
    {"method": "base64", "body": "aGVsbG8=", "proxy": f"login:{SECRET}@10.0.0.1:80"},
    {"method": "x", "data-s": "é💥\n", "rows[]": "1"},
]  # fmt: skip
DRAINS: list[Any] = [
    {"owner": "fuzzer", "mode": "handover", "lease_s": 60, "reason": "é"},
    {"owner": "fuzzer", "grace_s": 1, "on_expire": "verify", "deadline_s": 1, "on_deadline": "handover"},
    {"owner": "other", "steal": True},
]  # fmt: skip
PROBES: list[Any] = [{"request_id": "p1", "timeout_s": 1}, {"request_id": "p2", "task": {"method": "x"}, "expect": "y"}]
CALLS: dict[str, list[tuple[str, str, list[Any]]]] = {
    "data": [
        ("POST", "/v1/tasks", TASKS), ("POST", "/v1/tasks", TASKS), ("POST", "/v1/tasks?wait=0.05", TASKS),
        ("GET", "/v1/tasks/w1-0", []), ("GET", "/v1/tasks/{known}?wait=0.05", []), ("DELETE", "/v1/tasks/{known}", []),
        ("GET", "/healthz", []), ("GET", "/v1/tasks/{odd}", []), ("DELETE", "/v1/tasks/{odd}", []),
        ("GET", "/metrics", []),
    ],
    "control": [
        ("PUT", "/v1/drain", DRAINS), ("PUT", "/v1/drain", DRAINS), ("DELETE", "/v1/drain?owner=fuzzer", []),
        ("PUT", "/v1/standby", DRAINS), ("DELETE", "/v1/standby?owner={odd}", []),
        ("POST", "/v1/standby/take-over", DRAINS),
        ("POST", "/v1/probe", PROBES), ("GET", "/v1/status?wait=0.05&until=drained", []), ("GET", "/v1/status", []),
        ("GET", "/", []), ("DELETE", "/v1/drain?owner={odd}&steal={odd}", []), ("GET", "/v1/status?until={odd}", []),
    ],
}  # fmt: skip
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "x"]
QUOTED = [
    "%ff",
    "%00",
    "%ED%A0%80",
    "a%0d%0ab",
    "é",
    "%u0041",
    "w2-0",
    "-",
    "a" * 300,
    "..",
    "%2e%2e",
    "w1-%F0%9F%92%A5",
    "+",
]
QUERIES = [
    "?wait=61",
    "?wait=nan",
    "?wait=1e400",
    "?wait=%ff",
    "?wait=",
    "?wait=-1",
    "?&&&=",
    "?wait=0&wait=x",
    "?%00=1",
]
HEADERS = [
    b"Idempotency-Key: \xff", b"Idempotency-Key: " + b"k" * 256, b"Expect: 100-continue", b"Expect: nothing",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Origin: http://x", b"Content-Encoding: gzip",
    b"Content-Encoding: br", b"Upgrade: websocket\r\nConnection: upgrade", b"Host: evil.test", b"Content-Length: 5",
    b"Content-Length: -1", b"Cookie: \xff=\x80", b"X: " + b"x" * 9000, b"\r\n".join([b"X: y"] * 150), b"Accept: \x01",
    b"Range: bytes=0-", b"If-Match: *", b"Connection: keep-alive", b" folded: x", b"No colon", b": empty", b"\xff: x",
]  # fmt: skip
TYPES = [
    "application/json; charset=utf-8", "application/json; charset=punycode", 'application/json; charset="',
    "application/json;;;", "text/plain", "\x80/\xff", "application/json; charset=idna", "", "multipart/form-data",
]  # fmt: skip
AUTHORIZATIONS = [
    b"", b"Bearer \xff", f"Bearer {TOKEN}\x01".encode(), f"bearer {TOKEN}".encode(), b"Basic eDp5", b"\xff\xfe",
]  # fmt: skip


class Maker:
    """Requests from a seed: mostly right, with something wrong here and there."""

    def __init__(self, seed: str, known: str) -> None:
        self._random = random.Random(seed)
        self._known = known
        self.pick = self._random.choice

    def seldom(self, one_in: int) -> bool:
        return self._random.randrange(one_in) == 0

    def value(self, depth: int = 2) -> Any:
        kind = self._random.randrange(8) if depth else 7
        if kind == 0:
            return [self.value(depth - 1) for _unused in range(self._random.randrange(3))]
        if kind == 1:
            return {self.pick(NAMES): self.value(depth - 1) for _unused in range(self._random.randrange(3))}
        return self.pick(SCALARS)

    def body(self, good: list[Any]) -> bytes:
        document = dict(self.pick(good)) if good else self.value()
        if isinstance(document, dict):
            for _unused in range(self.pick([0, 0, 0, 1, 1, 2, 4])):
                document[self.pick([*NAMES, *document])] = self.value()
            if document and self.seldom(12):
                del document[self.pick(list(document))]
        if self.seldom(12):
            document = self.value()
        text = json.dumps(document, ensure_ascii=self.seldom(2)).encode("utf-8", "surrogatepass")
        return self.spoilt(text) if self.seldom(8) else text

    def spoilt(self, text: bytes) -> bytes:
        return self.pick([
            text[: len(text) // 2], text + b"}", b"\xff" + text, text * 40, b"[" * 3000, b'{"a":' * 500, b"1" * 4000,
            text.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass"), b"\xef\xbb\xbf" + text,
            b"{" + b" " * 4000,
            b"{" + b",".join(b'"%d":""' % n for n in range(300)) + b"}", text.replace(b",", b",,"), b"", b"\0" * 100,
        ])  # fmt: skip

    def odd(self, api: str) -> bytes:
        method, target, good = self.pick(CALLS[api])
        if self.seldom(10):
            method = self.pick(METHODS)
        target = target.replace("{known}", self._known)
        target = re.sub("{odd}", lambda _found: self.pick(QUOTED), target)
        if self.seldom(8):
            target = target.partition("?")[0] + self.pick(QUERIES)
        body = self.body(good) if good or self.seldom(12) else b""
        lines = [f"{method} {target} HTTP/1.{0 if self.seldom(20) else 1}".encode(), b"Host: localhost"]
        kind = self.pick(TYPES) if self.seldom(8) else "application/json"
        lines += [f"Content-Type: {kind}".encode("latin-1")] if kind else []
        lines += [b"Content-Length: %d" % len(body)] if (body or self.seldom(4)) and not self.seldom(30) else []
        if api == "data":
            token = self.pick(AUTHORIZATIONS) if self.seldom(12) else f"Bearer {TOKEN}".encode()
            key = self.pick("abcdef") if self.seldom(5) else str(self._random.randrange(10**9))
            lines += [b"Authorization: " + token, b"Idempotency-Key: " + key.encode()]
        lines += [self.pick(HEADERS)] if self.seldom(6) else []
        lines += [] if self.seldom(10) else [b"Connection: close"]
        return b"\r\n".join([*lines, b"", body])

    def broken(self, api: str) -> bytes:
        """Bytes are cut out, put in or changed anywhere; none of it may ask to wait for long."""
        request = bytearray(self.odd(api))
        for _unused in range(self.pick([1, 1, 2, 4])):
            at = self._random.randrange(len(request) or 1)
            change = self._random.randrange(5)
            if change == 0 and request:
                request[at] = self._random.randrange(256)
            elif change == 1:
                del request[at : at + self._random.randrange(1, 20)]
            elif change == 2:
                request[at:at] = self.pick(
                    [b"\r\n", b"\0", b"\n", b":", b"\xff", b" ", b"\r\n\r\n", b"0\r\n\r\n", b"%"]
                )
            elif change == 3:
                request[at:at] = request[at : at + 40]
            else:
                del request[at:]
        return re.sub(rb"wait=\d[^&\s]*", b"wait=0", bytes(request))


@pytest.mark.parametrize("api", ["data", "control"])
@pytest.mark.parametrize("kind", ["odd", "broken"])
def test_any_request_is_answered_and_leaves_the_worker_as_it_was(
    subject: Subject, check: Any, api: str, kind: str
) -> None:
    before, seen = subject.sent, dict(subject.statuses)
    for number in range(max(REQUESTS // BATCH, 1)):
        maker = Maker(f"{api}-{kind}-{number}", subject.known)
        requests = [getattr(maker, kind)(api) for _unused in range(BATCH)]
        check(api, requests, subject.exchange(api, requests))
    answers = {status: count - seen.get(status, 0) for status, count in sorted(subject.statuses.items())}
    print(f"{api}, {kind}: {subject.sent - before} requests, {answers}")
    assert answers.get(200), "nothing was right about any of them"


def test_what_was_accepted_meanwhile_can_be_read(subject: Subject) -> None:
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
    body = json.dumps({"method": "userrecaptcha", "googlekey": "k", "pageurl": "https://shop.test/"}).encode()
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: last\r\n\r\n"
    status, _head, document = parsed(subject.exchange("data", [head.encode() + body])[0])
    assert status == 202
    head = f"GET /v1/tasks/{document['id']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {TOKEN}\r\n\r\n"
    status, _head, document = parsed(subject.exchange("data", [head.encode()])[0])
    assert (status, document["solution"]) == (200, None)
