# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is at a control socket, our client and what is built on it come back in time with a finding or a failure.

The answers are drawn by a fixed seed: bytes that are no HTTP, HTTP that never ends, and good documents with something
changed anywhere. SF_EXAMPLES sets how many; a part of them are answers to whole modules.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import resource
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import entry_kit as kit
import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _haproxy, _job_check, _job_drain, _job_lock
from ansible_collections.solver.fleet.plugins.module_utils._census import census
from ansible_collections.solver.fleet.plugins.module_utils._client import ApiProblem, WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._job import attempt
from ansible_collections.solver.fleet.plugins.module_utils._job_steps import KINDS
from ansible_collections.solver.fleet.plugins.module_utils._release_switch import Move, Switch
from ansible_collections.solver.fleet.plugins.module_utils._service_base import ServiceState

EXAMPLES = int(os.environ.get("SF_EXAMPLES", "800"))
SEED = 20261129
TIMEOUT_S = 0.2
# This machine may be busy with other things.
SLACK_S = 3.0
MORE_MEMORY = 64 * 1024 * 1024
PROBE = {"request_id": "r", "outcome": "failed", "elapsed_s": 1.5, "version": "1.2.0", "boot_id": "b1",
         "error": {"code": "ERROR_X", "class": "account", "message": "refused"}}
PROBLEM = {"code": "drained_by_another", "title": "No", "status": 409, "detail": "no", "owner": "o", "reason": "r",
           "lease_expires_at": "2026-01-01T00:00:00Z"}


def deep(levels: int) -> Any:
    value: Any = "x"
    for _level in range(levels):
        value = {"a": [value]}
    return value


WORDS = ("", "failed", "drained", "running", "starting", "draining", "o", "9999-12-31T23:59:59Z", "\x1b[2J\x1b[1;1Hx",
         "w1\nw3 updated", "\u202e", "\ud800", "x" * 100_000, "%s{0}", "fast", "2026-01-01T00:00:60.9999999999999Z")
JUNK: tuple[Any, ...] = (
    *WORDS, None, True, False, 0, -1, 1 << 53, 10**30, 1.5, -0.0, 1e308, [], {}, [[]], [{}], [None], {"": None}, "gone",
    deep(5), deep(15), deep(400), ["x"] * 5000)
# As no encoder of ours would write them.
RAW = (b"NaN", b"-Infinity", b"1e999", b"1" * 400, b"9" * 200_000, b'"\\ud800"', b"[" * 3000, b"[" * 100_000, b"{" * 99,
       b'{"a":' * 900 + b"1" + b"}" * 900, b'"\xff"', b'"\x00"', b"", b"01", b"'x'")
MARK = "@@raw@@"


def ways(document: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if way:
        yield way
    if not isinstance(document, (dict, list)):
        return
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield from ways(value, (*way, key))


def changed(document: Json, rng: random.Random) -> bytes:
    """A good document with something else in up to three places."""
    out = copy.deepcopy(document)
    raw, touched = b"", list[tuple[Any, ...]]()
    for way in rng.choices(list(ways(document)), k=rng.choice((0, 1, 1, 1, 2, 3))):
        if any(way[:len(gone)] == gone or gone[:len(way)] == way for gone in touched):
            continue
        touched.append(way)
        around = out
        for key in way[:-1]:
            around = around[key]
        if rng.random() < 0.25:
            around[way[-1]], raw = MARK, rng.choice(RAW)
        elif rng.random() < 0.15 and isinstance(around, dict):
            del around[way[-1]]
        else:
            around[way[-1]] = rng.choice(JUNK)
    return json.dumps(out).encode("utf-8").replace(b'"%s"' % MARK.encode(), raw)


def http(body: bytes, status: int = 200, kind: bytes = b"application/json", more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n" % (status, kind, len(body))
    return head + more + b"\r\n" + body


class Hostile:
    """What listens at a control socket: each connection gets what the seed says, and the time that it takes."""

    def __init__(self, path: str, draw: Callable[[random.Random, bytes], list[Any]]) -> None:
        self.path, self.draw, self.answers = path, draw, 0
        self.rng = random.Random(0)
        self.over = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer = self._listener.accept()[0]
            except OSError:
                return
            self.answers += 1
            threading.Thread(target=self._serve, args=(peer, self.rng), daemon=True).start()

    def _serve(self, peer: socket.socket, rng: random.Random) -> None:
        with peer, contextlib.suppress(OSError):
            peer.settimeout(5)
            for part in self.draw(rng, peer.recv(65536)):
                if isinstance(part, float):
                    self.over.wait(part)
                elif callable(part):  # without end
                    while not self.over.is_set():
                        peer.sendall(part())
                else:
                    peer.sendall(part)

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def document_for(request: bytes, rng: random.Random) -> list[Any]:
    """What a worker would answer, changed."""
    if rng.random() < 0.15:
        status = rng.choice((400, 404, 409, 409, 500, 503, 503))
        return [http(changed(PROBLEM, rng), status, b"application/problem+json")]
    good = PROBE if request.startswith(b"POST") else kit.status()
    return [http(changed(good, rng), rng.choice((200, 200, 200, 200, 202, 204)))]


KINDS_OF_BODY = (b"text/html", b"\xff", b"multipart/mixed; boundary=x", b"message/rfc822", b";" * 999)


def no_document(request: bytes, rng: random.Random) -> list[Any]:
    body = json.dumps(kit.status()).encode()
    size, ok = len(body), b"HTTP/1.1 200 OK\r\n"
    chunked = ok + b"Transfer-Encoding: chunked\r\n\r\n"
    return rng.choice((
        [], [b"\x00"], [rng.randbytes(rng.choice((1, 50, 5000)))], [b"HTTP/1.1"], [ok], [ok + b"\r\n"],
        [ok + b"X: \xff\r\n\r\n"], [b"HTTP/1.1 -1 X\r\n\r\n"], [b"HTTP/1.1 99999999999 X\r\n\r\n"], [b"+OK\r\n"],
        [b"HTTP/0.9 200\r\n\r\n" + body], [body], [b"HTTP/1.1 100 Continue\r\n\r\n" * 3000 + http(body)],
        [b"HTTP/1.1 101 X\r\n\r\n"], [http(body, 302, more=b"Location: /\r\n")],
        [http(body, kind=rng.choice(KINDS_OF_BODY))],
        [http(body, more=b"Content-Encoding: gzip\r\n")], [http(b"")], [http(b"x" * (2 << 20))], [http(body)[:-9]],
        *([ok + b"Content-Length: " + length + b"\r\n\r\n" + body] for length in (
            b"-1", b"x", b"1" + b"0" * 400, b"9999999999999", b"%d" % (size + 9), b"%d" % (size - 9), b"1e3", b"0x5")),
        *([chunked + chunk] for chunk in (
            b"%x\r\n" % size + body + b"\r\n0\r\n\r\n", b"%x\r\n" % size + body, b"zz\r\n", b"-5\r\nx",
            b"f" * 30 + b"\r\n", b"7fffffff\r\n" + body, b"5;" + b"e" * 70_000 + b"\r\n", b"1\r\nx\r\n" * 999)),
        [ok + b"X: 1\r\n" * 5000 + b"\r\n"], [ok + b"X: " + b"a" * 70_000 + b"\r\n\r\n"],
        [http(body)[:40], 0.05, http(body)[40:]]))


def never_ends(_request: bytes, rng: random.Random) -> list[Any]:
    ok = b"HTTP/1.1 200 OK\r\n"
    drip = [part for byte in http(b"[" * 99) for part in (bytes([byte]), 0.03)]
    chunked = ok + b"Transfer-Encoding: chunked\r\n\r\n"
    return rng.choice((
        [9.0], [ok, 9.0], [ok + b"\r\n", lambda: b" " * 4096], [ok + b"X: ", lambda: b"a" * 4096],
        [lambda: b"X: 1\r\n" * 99], [lambda: b"HTTP/1.1 100 Continue\r\n\r\n" * 99],
        [chunked, lambda: b"1\r\nx\r\n" * 99],
        drip, [ok + b"Content-Length: 999999\r\n\r\n", *drip], [0.15]))


def anything(rng: random.Random, request: bytes) -> list[Any]:
    way = rng.random()
    return (document_for if way < 0.6 else no_document if way < 0.96 else never_ends)(request, rng)


def mostly_good(rng: random.Random, request: bytes) -> list[Any]:
    """So that a module comes further than to its first look; the drain is the caller's, as far as it goes."""
    if rng.random() < 0.2:
        return anything(rng, request)
    drain = dict(kit.DRAIN, owner="o")
    state = rng.choice(("running", "draining", "drained"))
    good = kit.status(**({} if state == "running" else {"drain": drain, "state": state}))
    return [http(changed(good, rng) if rng.random() < 0.5 else json.dumps(good).encode(), rng.choice((200, 202)))]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def hostile(folder: Path) -> Iterator[Hostile]:
    made = Hostile(str(folder / "c"), anything)
    yield made
    made.close()


def asked(client: WorkerClient, rng: random.Random) -> tuple[str, float]:
    """One call; how it ended. Anything but an error with a code goes to the caller."""
    calls: tuple[tuple[float, Callable[[], Any]], ...] = (
        (TIMEOUT_S, client.status), (TIMEOUT_S + 0.1, lambda: client.status(0.1, ("drained",))),
        (TIMEOUT_S, lambda: client.put_drain({"owner": "o"})),
        (TIMEOUT_S, lambda: client.delete_drain("o", steal=True)),
        (TIMEOUT_S, lambda: client.probe({"request_id": "r"}, TIMEOUT_S)))
    limit, call = rng.choice(calls)
    began = time.monotonic()
    wrong: WorkerError | None = None
    try:
        shown_whole(call())
    except WorkerError as error:
        wrong = error
    late = time.monotonic() - began - limit
    if wrong is None:
        return "answered", late
    assert wrong.message.isprintable()
    shown_whole(wrong.details)
    return "refused" if isinstance(wrong, ApiProblem) else wrong.code, late


def shown_whole(result: Any) -> None:
    """It must stand any encoder: of the module, of Ansible, of a callback."""
    json.dumps(result, allow_nan=False, ensure_ascii=False).encode("utf-8")


def test_any_answer_to_the_client(hostile: Hostile, record_property: Callable[[str, object], None]) -> None:
    client = WorkerClient(hostile.path, TIMEOUT_S)
    ends: Counter[str] = Counter()
    before, late = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for number in range(EXAMPLES):
        hostile.rng = random.Random(f"{SEED} {number}")
        ended, over = asked(client, random.Random(f"{SEED} call {number}"))
        ends[ended] += 1
        late = max(late, over)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    figures = f"{EXAMPLES} calls, {hostile.answers} answers: {dict(ends)}, late by {late:.2f} s, +{more >> 20} MiB"
    record_property("figures", figures)
    print(figures)
    assert set(ends) <= {"answered", "refused", "stopped", "dead", "hung", "foreign"}
    assert len(ends) >= 4  # else most of this was not tried
    assert late < SLACK_S
    assert more < MORE_MEMORY


def given(module: str, path: str, rng: random.Random) -> Json:
    """The options of a module that asks a worker, with defaults as its argument spec has them."""
    spec = KINDS[module].argument_spec()
    own = {"control_socket": path, "control_timeout": TIMEOUT_S, "wait_slice": 0.2}
    if module == "worker_drain":
        own |= {"owner": "o", "state": rng.choice(("drained", "active")), "on_expire": "verify", "timeout": 0.4,
                "on_timeout": rng.choice(("handover", "return_to_service")), "lease": 5.0}
    elif module == "solve_check":
        own |= {"request_id": "r", "retries": 2, "interval": 0.0, "probe_timeout": 1.0, "deadline": 0.5,
                "totals_before": {"accepted": 1}, "expect_state": rng.choice((["running", "drained"], ["starting"]))}
    return {**{name: option.get("default") for name, option in spec.items()}, **own}


class Manager:
    """A service manager that has nothing to say."""

    def restart(self, force: bool = False, keep: Sequence[int] = ()) -> None:
        """Do as asked."""

    def cannot_start(self) -> str | None:
        return None

    def state(self) -> ServiceState:
        return ServiceState("running", 8, "")

    def log_tail(self) -> list[str]:
        return []


def switched(path: str, folder: Path, number: int) -> Json:
    """What worker_release does to a worker of which all this is known but its answers."""
    names = ("one", "two")
    for name in names:
        (folder / "releases" / name / "env/bin").mkdir(parents=True, exist_ok=True)
        (folder / "releases" / name / "env/bin/python").touch()
        document = {"schema": "solver.release/1", "id": name, "version": "1"}
        (folder / "releases" / name / "release.json").write_text(json.dumps(document))
    move = Move("w1", str(folder), str(folder), release=names[number % 2], owner="o", restart_timeout=0.2)
    work = Switch(move, WorkerClient(path, TIMEOUT_S), Manager())  # type: ignore[arg-type]
    return attempt(lambda: work.run(False), so_far=lambda: work.result)


def test_any_answer_to_a_module(hostile: Hostile, folder: Path) -> None:
    """A crash of ours would be a failure without a cause; a result that no encoder takes would be a lost host."""
    hostile.draw = mostly_good
    ends: Counter[str] = Counter()
    for number in range(EXAMPLES // 10):
        hostile.rng = random.Random(f"{SEED} module {number}")
        rng = random.Random(f"{SEED} options {number}")
        work: Callable[[], Json] = rng.choice((
            lambda: attempt(lambda: census(hostile.path, TIMEOUT_S)),
            lambda number=number: switched(hostile.path, folder, number),
            lambda rng=rng: _job_drain.DrainJob(given("worker_drain", hostile.path, rng), False, str).run(),
            lambda rng=rng: _job_check.CheckJob(given("solve_check", hostile.path, rng), False, str).run()))
        ends[judged(work(), number)] += 1
    print(dict(ends))
    assert len(ends) >= 4


def judged(result: Json, number: int) -> str:
    shown_whole(result)
    code = str((result.get("failure") or {}).get("code", result.get("finding")))
    assert code != "crashed", (number, result["failure"])
    for text in (result.get("msg"), result.get("message"), result.get("pending")):
        assert str(text or "").isprintable(), (number, text)
    return code


def test_any_record(folder: Path) -> None:
    """The record lies where the worker may write; so may the note of its drain, and the history."""
    good = {**kit.record(), "lock": dict(kit.LOCK, run_id="run-1")}
    (folder / "rollout/history").mkdir(parents=True)
    (folder / "rollout/lock").touch()
    ends: Counter[str] = Counter()
    for number in range(EXAMPLES // 4):
        rng = random.Random(f"{SEED} record {number}")
        (folder / "rollout/record.json").write_bytes(changed(good, rng))
        (folder / "rollout/history/1.json").write_bytes(changed(good, rng))
        state = rng.choice(("held", "renewed", "released", "requested", "enrolled"))
        options = {name: option.get("default") for name, option in _job_lock.argument_spec().items()}
        options |= {"worker_dir": str(folder), "state": state, "rollout_id": "r2", "run_id": rng.choice(("run-1", "x")),
                    "roster": ["w1"], "to_release": "x", "from_release": "y", "request": "pause"}
        ends[judged(_job_lock.LockJob(options, False, str).run(), number)] += 1
        looked = attempt(lambda: census(str(folder / "none"), TIMEOUT_S, str(folder), history=3))
        ends[judged(looked, number)] += 1
    print(dict(ends))
    assert ends["bad_record"]
    assert ends["None"]


def test_any_answer_of_a_router(folder: Path) -> None:
    good = (b"# pxname,svname,status,scur,stot,weight,last_chk,addr\nsolver,w1,UP,1,2,3,L7OK,127.0.0.1:1\n"
            b"Version: 2.6\nUptime_sec: 5\nPid: 7\nCurrConns: 1\n")
    pieces = (b"", b"\x00", b"\x1b[2J", b"\xc2\xb2", b'"', b"9" * 5000, b"\n", b",")

    def mutated(rng: random.Random, _request: bytes) -> list[Any]:
        data = bytearray(good)
        for _each in range(rng.choice((0, 1, 2, 5))):
            at = rng.randrange(len(data))
            data[at:at + rng.choice((0, 1, 9))] = rng.choice(pieces)
        whole = bytes(data)
        return rng.choice(([whole], [whole], [b"x" * 200_000], [whole, lambda: b"a" * 65536], [whole, 9.0]))

    router = Hostile(str(folder / "r"), mutated)
    ends: Counter[str] = Counter()
    for number in range(EXAMPLES // 20):
        router.rng = random.Random(f"{SEED} router {number}")
        ends[judged(attempt(lambda: _haproxy.look(router.path, "solver", TIMEOUT_S)), number)] += 1
    router.close()
    print(dict(ends))
    assert len(ends) >= 2
