# SPDX-License-Identifier: GPL-3.0-or-later
"""What HAProxy says over its socket, and every way in which it does not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from ansible_collections.solver.fleet.plugins.module_utils import _haproxy

HEAD = "# pxname,svname,scur,status,check_status,last_chk,addr,weight,\n"
STAT = HEAD + (
    "front,FRONTEND,1,OPEN,,,,,\n"
    "solver,w1,2,UP,L7OK,OK,192.0.2.1:8081,1,\n"
    "solver,w2,0,NOLB 1/1,L7OKC,Not Found,192.0.2.2:8081,1,\n"
    "solver,w3,0,DOWN,L4CON,Connection refused,192.0.2.3:8081,1,\n"
    "solver,w4,0,UP 1/2,L7OK,,192.0.2.4:8081,1,\n"
    "solver,BACKEND,2,UP,,,,2,\n")


@pytest.fixture
def answering(tmp_path):
    """A socket that answers each command with what the test says; None for nothing at all."""
    path = str(tmp_path / "stats.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    answers: dict[str, str | None] = {}
    held = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _address = server.accept()
                answer = answers.get(line.recv(1000).decode().strip(), "")
                if answer is None:
                    held.append(line)
                    continue
                with line:
                    line.sendall(answer.encode())

    threading.Thread(target=serve, daemon=True).start()
    yield path, answers
    server.close()


def test_the_view(answering):
    path, answers = answering
    answers.update({"show stat": STAT, "show info": "Version: 2.6.12\nPid: 7\nUptime_sec: 61\nCurrConns: 3\n"})
    found = _haproxy.look(path, "solver", 2.0)
    assert found["serving"] == ["w1", "w4"]
    assert {name: one["status"] for name, one in found["servers"].items()} == {
        "w1": "UP", "w2": "NOLB 1/1", "w3": "DOWN", "w4": "UP 1/2"}
    assert found["servers"]["w1"]["sessions"] == 2
    assert (found["version"], found["uptime_s"], found["pid"], found["connections"]) == ("2.6.12", 61, 7, 3)


@pytest.mark.parametrize(("answer", "code"), [
    ("HTTP/1.1 400 Bad Request\r\n\r\n", "foreign"), (HEAD, "no_backend"), (None, "hung"), ("", "foreign")])
def test_no_view(answering, answer, code):
    path, answers = answering
    answers["show stat"] = answer
    with pytest.raises(_haproxy.RouterError) as caught:
        _haproxy.look(path, "solver", 0.3)
    assert caught.value.code == code


def test_nobody_there(tmp_path):
    path = str(tmp_path / "stats.sock")
    with pytest.raises(_haproxy.RouterError, match="there is no socket") as caught:
        _haproxy.look(path, "solver", 1.0)
    assert caught.value.code == "no_socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    with pytest.raises(_haproxy.RouterError, match="the router has ended") as caught:
        _haproxy.look(path, "solver", 1.0)
    assert caught.value.code == "dead"


def test_denied(monkeypatch, tmp_path):
    def refuse(*_args):
        raise PermissionError

    monkeypatch.setattr(_haproxy.socket.socket, "connect", refuse, raising=False)
    path = str(tmp_path / "stats.sock")
    with pytest.raises(_haproxy.RouterError) as caught:
        _haproxy.look(path, "solver", 1.0)
    assert caught.value.code == "denied"


@pytest.mark.parametrize("dripping", ["show stat", "show info"])
def test_a_look_takes_no_longer_than_its_time_whatever_is_slow(tmp_path, dripping):
    """Two questions, and an answer of which a byte comes now and then."""
    path = str(tmp_path / "stats.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    ended = threading.Event()

    def answer(line: socket.socket) -> None:
        with line, contextlib.suppress(OSError):
            asked = line.recv(1000).decode().strip()
            if asked != dripping:
                ended.wait(0.4)
                line.sendall(STAT.encode())
                return
            while not ended.wait(0.05):
                line.sendall(b"#")

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(_haproxy.RouterError, match="within 1 s") as caught:
        _haproxy.look(path, "solver", 1.0)
    took = time.monotonic() - began
    ended.set()
    server.close()
    assert caught.value.code == "hung"
    assert took < 1.35, "not a second time for the second question"
