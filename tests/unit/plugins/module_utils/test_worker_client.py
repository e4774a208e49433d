# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport and the client against everything that may be at a socket."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._census import census, in_words
from ansible_collections.solver.fleet.plugins.module_utils._check import CheckOptions, judge
from ansible_collections.solver.fleet.plugins.module_utils._client import (
    ApiProblem,
    BadSocketPath,
    DeadSocket,
    Foreign,
    Hung,
    NoSocket,
    WorkerClient,
    WorkerError,
    status_defects,
)
from ansible_collections.solver.fleet.plugins.module_utils._drain import (
    DrainOptions,
    drain_body,
    elapsed_of,
    foreign_drain_of,
    loss_of,
    missing_feature,
    slow_solves_warning,
)
from ansible_collections.solver.fleet.plugins.module_utils._result import remaining_of
from hypothesis import given
from hypothesis import strategies as st

SHORT_S = 0.4


def finding(path: str, timeout: float = SHORT_S) -> str:
    return str(census(path, timeout)["finding"])


def test_a_worker_that_answers(serve: Any, tools: Any) -> None:
    server = serve(tools.answer(tools.status()))
    result = census(server.path, 2.0)
    assert result["finding"] == "answering"
    assert result["worker"]["instance"]["name"] == "w1"
    assert result["message"] == "worker 'w1' is running, version 1.2.0, 0 open tasks"


def test_no_socket(run_dir: Path) -> None:
    with pytest.raises(NoSocket, match="there is no socket at"):
        WorkerClient(str(run_dir / "none.sock")).status()
    assert finding(str(run_dir / "none.sock")) == "stopped"


def test_a_leftover_socket(run_dir: Path) -> None:
    path = str(run_dir / "left.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    with pytest.raises(DeadSocket, match="leftover socket"):
        WorkerClient(path).status()


def test_a_plain_file_is_no_socket(run_dir: Path) -> None:
    (run_dir / "file").write_text("x")
    with pytest.raises(Foreign, match="is not a socket: set control_socket"):
        WorkerClient(str(run_dir / "file")).status()


def test_denied(run_dir: Path, serve: Any, tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(tools.answer(tools.status()))
    if os.geteuid() == 0:  # root passes every mode, so the kernel's answer is given here

        def refuse(_self: socket.socket, _path: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socket.socket, "connect", refuse)
    else:
        Path(server.path).chmod(0o000)
    assert finding(server.path) == "denied"


def test_a_silent_worker_is_hung_and_bounded(serve: Any) -> None:
    server = serve(lambda connection: connection.recv(1) and time.sleep(3))
    started = time.monotonic()
    with pytest.raises(Hung, match=r"no complete answer within 0\.4 s"):
        WorkerClient(server.path, SHORT_S).status()
    assert time.monotonic() - started < 2


def test_a_full_backlog_is_hung(run_dir: Path) -> None:
    path = str(run_dir / "full.sock")
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        try:
            for _client_number in range(8):
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                client.connect(path)
        except BlockingIOError:
            pass
        assert finding(path) == "hung"
        for client in waiting:
            client.close()


def dribble(data: bytes, forever: bytes = b"x") -> Any:
    def step(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        while True:
            connection.sendall(forever)
            time.sleep(0.05)

    return step


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "],
)
def test_a_dribbling_worker_is_cut_at_the_deadline_of_the_whole(serve: Any, data: bytes) -> None:
    server = serve(dribble(data))
    started = time.monotonic()
    assert finding(server.path) == "hung"
    assert time.monotonic() - started < 2


def flood(head: bytes, block: bytes) -> Any:
    def step(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head)
        while True:
            connection.sendall(block)

    return step


@pytest.mark.parametrize(
    ("head", "block"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"{" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"y" * 4096 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nA: ", b"c" * 65536),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
)
def test_an_endless_answer_is_cut_at_the_limit(serve: Any, head: bytes, block: bytes) -> None:
    server = serve(flood(head, block))
    assert finding(server.path, 10.0) == "foreign"


@pytest.mark.parametrize(
    "data",
    [
        b"220 mail ready\r\n",
        b"\x00\xff\x00\xff" * 10,
        b"HTTP/1.1 banana OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://example.invalid/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100000,
        b"",
    ],
)
def test_something_else_is_foreign(serve: Any, tools: Any, data: bytes) -> None:
    server = serve(tools.raw(data))
    assert finding(server.path, 5.0) == "foreign"


def test_a_problem_instead_of_a_status_is_foreign(serve: Any, tools: Any) -> None:
    server = serve(tools.answer({"code": "broken", "detail": "no"}, 500, "application/problem+json"))
    assert finding(server.path, 2.0) == "foreign"


def test_a_connection_that_breaks_once_is_tried_again(serve: Any, tools: Any) -> None:
    server = serve(tools.raw(b""), tools.answer(tools.status()))
    assert WorkerClient(server.path).status()["state"] == "running"
    assert server.connections == 2


def test_a_problem_keeps_its_code_and_status(serve: Any, tools: Any) -> None:
    problem = {"code": "drained_by_another", "detail": "x drains this worker", "owner": "x"}
    server = serve(tools.answer(problem, 409, "application/problem+json"))
    with pytest.raises(ApiProblem) as caught:
        WorkerClient(server.path).put_drain({"owner": "me"})
    assert (caught.value.status, caught.value.code, caught.value.problem["owner"]) == (409, "drained_by_another", "x")


@pytest.mark.parametrize(("code", "cause"), [("journal_unwritable", "host"), ("internal", "release")])
def test_a_disk_is_not_the_release_s_fault(serve: Any, tools: Any, code: str, cause: str) -> None:
    server = serve(tools.answer({"code": code, "detail": "no room"}, 503, "application/problem+json"))
    with pytest.raises(ApiProblem) as caught:
        WorkerClient(server.path).put_drain({"owner": "me"})
    assert (caught.value.code, caught.value.cause) == (code, cause)


def test_a_refusal_is_read_although_the_request_was_not(serve: Any, tools: Any) -> None:
    """A full worker may answer and close before it has read: the send breaks, the answer is there."""
    body = b'{"code": "too_busy", "detail": "later"}'
    head = b"HTTP/1.1 503 X\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n" % len(body)

    def refuse(connection: socket.socket) -> None:
        connection.sendall(head + body)

    server = serve(refuse)
    with pytest.raises(ApiProblem) as caught:
        WorkerClient(server.path).put_drain({"owner": "me", "reason": "x" * 2_000_000})
    assert (caught.value.status, caught.value.code) == (503, "too_busy")


def test_requests_are_what_the_api_says(serve: Any, tools: Any) -> None:
    seen: list[bytes] = []
    lock = threading.Lock()

    def record(connection: socket.socket) -> None:
        with lock:
            seen.append(connection.recv(65536))
        body = json.dumps(tools.status()).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    client = WorkerClient(serve(record).path)
    client.status(wait=25, until=["drained", "running"])
    client.delete_drain("a b&c/d", steal=True)
    assert seen[0].startswith(b"GET /v1/status?wait=25.000&until=drained,running HTTP/1.1\r\n")
    assert b"\r\nHost: localhost\r\n" in seen[0]
    assert seen[1].startswith(b"DELETE /v1/drain?owner=a%20b%26c%2Fd&steal=true HTTP/1.1\r\n")


@pytest.mark.parametrize("path", ["/tmp/" + "x" * 103, "/tmp/" + "ü" * 60])
def test_a_path_beyond_107_bytes_names_the_option(path: str) -> None:
    with pytest.raises(BadSocketPath, match=r"control_socket is \d+ bytes long, but a Unix socket path ends at 107"):
        WorkerClient(path)


def test_a_path_of_107_bytes_is_good() -> None:
    assert WorkerClient("/" + "x" * 106).socket_path


def test_a_relative_path_names_the_option() -> None:
    with pytest.raises(WorkerError, match="control_socket must be an absolute path"):
        WorkerClient("w1.sock")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_no_document_breaks_the_validator(document: Any) -> None:
    assert status_defects(document)


@given(st.data())
def test_a_damaged_status_is_named_or_can_be_told_in_words(data: st.DataObject) -> None:
    from ansible_collections.solver.fleet.plugins.module_utils import _client

    document = _valid()
    field = data.draw(st.sampled_from(sorted(_client._STATUS_FIELDS)))
    document[field] = data.draw(JSON)
    if not status_defects(document):
        assert in_words(document)


def _valid() -> dict[str, Any]:
    return {
        "schema": "solver.worker.status/1",
        "api": {},
        "state": "running",
        "since": "x",
        "seq": 1,
        "instance": {"name": "w", "version": "1", "boot_id": "b", "pid": 1},
        "accepting": True,
        "safe_to_stop": False,
        "idle": True,
        "drain": None,
        "tasks": {"open": 0},
        "totals": {"accepted": 0, "succeeded": 0, "failed": 0, "uncertain": 0, "expired": 0},
    }


def test_a_status_without_counts_is_valid_only_where_they_are_unknown() -> None:
    document = _valid()
    document.update(totals=None, tasks=None)
    assert status_defects(document) == ["tasks is null in state running", "totals is null in state running"]
    document["state"] = "failed"
    assert status_defects(document) == []


JUNK: list[Any] = [None, True, -1, 2.5, "", "x", "x" * 501, "\x1b[2J", [], ["x"], {}, {"x": {}}]


def places(document: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in document.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


def test_one_wrong_field_is_named_or_hurts_nothing(tools: Any) -> None:
    """Whatever one field holds: either the status is refused, by that field, or nobody stumbles over it."""
    drain = {"owner": "me", "reason": "r", "mode": "complete", "requested_at": "2026-01-01T00:00:00Z",
             "lease_expires_at": "2026-01-01T00:00:00Z", "expired": False, "version": "1.2.0"}
    good = tools.status("drained", drain=drain, failure={"code": "x", "message": "y"})
    options, checks = DrainOptions("me", on_timeout="handover"), CheckOptions(expect_journal_id="j1")
    refused = 0
    for path in places(good):
        for junk in JUNK:
            status = json.loads(json.dumps(good))
            into = status
            for name in path[:-1]:
                into = into[name]
            into[path[-1]] = junk
            defects = status_defects(status)
            if defects:
                refused += 1
                assert any(name in " ".join(defects) for name in path), (path, junk, defects)
                continue
            for owner in ("me", "you"):
                foreign_drain_of(status, owner)
                loss_of(status, owner)
            for state in ("failed", status["state"]):
                judge(checks, {**status, "state": state})
            missing_feature(options, status)
            slow_solves_warning(options, status)
            drain_body(options, status["drain"], elapsed_of(status["drain"], 0.0), False)
            in_words(status)
            remaining_of(status)
    assert refused > 300


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "1" + "0" * 400, str(2**53)])
def test_a_number_beyond_all_bounds_is_no_answer(serve: Any, tools: Any, number: str) -> None:
    text = json.dumps(tools.status()).replace('"seq": 1', f'"seq": {number}').encode()
    assert number.encode() in text
    server = serve(tools.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)))
    assert finding(server.path) == "foreign"


def test_asking_again_takes_no_more_than_the_time_of_one_call(serve: Any) -> None:
    server = serve(lambda connection: connection.recv(1) and time.sleep(0.75 * SHORT_S))
    began = time.monotonic()
    with pytest.raises(Hung):
        WorkerClient(server.path, SHORT_S).status()
    assert server.connections == 2
    assert time.monotonic() - began < 1.4 * SHORT_S


@pytest.mark.parametrize("length", ["9" * 400, "99999999999999", "-5", "x"])
def test_a_length_that_is_only_promised_is_not_made_room_for(serve: Any, tools: Any, length: str) -> None:
    server = serve(tools.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{{}}".encode()))
    with pytest.raises(Foreign):
        WorkerClient(server.path, 2.0).status()


def test_what_does_not_fit_is_named(serve: Any, tools: Any) -> None:
    server = serve(tools.answer(tools.status(seq="1")))
    with pytest.raises(Foreign, match=r"answers wrongly: seq has the wrong type \(in its status document\)"):
        WorkerClient(server.path, 2.0).status()
