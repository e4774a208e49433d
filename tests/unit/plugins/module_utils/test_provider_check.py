# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider's own check: what counts as an answer, and how long one may take."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from ansible_collections.solver.fleet.plugins.module_utils import _provider_check as check
from ansible_collections.solver.fleet.plugins.module_utils._check import CheckError


@pytest.mark.parametrize(("raw", "found"), [
    (b"OK|123", (True, "123")), (b'{"status":1,"request":"123"}', (True, "123")), (b"12.5", (True, "12.5")),
    (b'{"status":1,"request":12.5}', (True, "12.5")), (b"CAPCHA_NOT_READY", (False, "CAPCHA_NOT_READY")),
    (b'{"status":0,"request":"ERROR\\u001b[2J\\nw2 updated\\ud800"}', (False, "ERROR [2J w2 updated"))])
def test_an_answer_is_a_line_that_may_be_shown(raw: bytes, found: tuple[bool, str]) -> None:
    assert check.parse_answer("res.php", raw) == found


@pytest.mark.parametrize("raw", [
    b"", b"\xff", b"<html>", b"{", b"[" * 60_000, b'{"a":' * 20_000, b'{"status":1}', b'{"status":1,"request":true}',
    b'{"status":1,"request":[1]}', b"[1]" * 30])
def test_what_is_not_of_the_protocol_is_the_providers_fault(raw: bytes) -> None:
    with pytest.raises(CheckError) as caught:
        check.parse_answer("res.php", raw)
    assert (caught.value.code, caught.value.details["fault"]) == ("provider_answer", "provider")


@contextmanager
def provider(*parts: bytes, pause: float = 0.0) -> Iterator[str]:
    """A provider that answers all calls with the same PARTS, and a pause before each."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                peer = listener.accept()[0]
            except OSError:
                return
            with peer:
                request = b""
                while b"json=1" not in request:  # the last of the form; what is not read would reset the connection
                    request += peer.recv(65536)
                try:
                    for part in parts:
                        over.wait(pause)
                        peer.sendall(part)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


def asked(url: str) -> check.Provider:
    return check.Provider(check.ProviderAccess(url, "k" * 32, 1.0), requests)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(("parts", "code"), [
    ([HEAD + b"\r\n", *[b"1"] * 400], "provider_timeout"), ([bytes([byte]) for byte in HEAD * 20], "provider_timeout"),
    ([HEAD, *[b"X: 1\r\n"] * 90], "provider_timeout")])
def test_a_dripping_answer_does_not_outlast_its_time(
    parts: list[bytes], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CALL_TIMEOUT_S", 1.0)
    began = time.monotonic()
    with provider(*parts, pause=0.05) as url, pytest.raises(CheckError) as caught:
        asked(url).balance()
    assert caught.value.code == code
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(("head", "body", "code"), [
    (b"Content-Encoding: gzip\r\n", b"no gzip", "provider_answer"),
    (b"Content-Encoding: gzip\r\n", gzip.compress(b"12.5", mtime=0)[:-2], "provider_answer"),
    (b"Content-Encoding: gzip\r\n", gzip.compress(bytes(10_000_000)), "provider_answer"),
    (b"Transfer-Encoding: chunked\r\n", b"zz\r\n", "provider_unreachable"),
    (b"", b"NaN", "balance_failed"), (b"", b'{"status":1,"request":NaN}', "provider_answer"),
    (b"", b'{"status":1,"request":"sNaN"}', "provider_answer"),
    (b"", b'{"status":1,"request":1e999}', "provider_answer"),
    (b"", b'{"status":1,"request":"1e99"}', "provider_answer"), (b"", b"1" * 70_000, "provider_answer")])
def test_a_broken_body_is_a_finding(head: bytes, body: bytes, code: str) -> None:
    with provider(HEAD + head + b"\r\n" + body) as url, pytest.raises(CheckError) as caught:
        asked(url).balance()
    assert caught.value.code == code


def test_a_packed_answer_is_read() -> None:
    with provider(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"12.5", mtime=0)) as url:
        assert str(asked(url).balance()) == "12.5"


def test_an_id_is_a_number() -> None:
    with provider(HEAD + b"\r\nOK|12\r\nX: y") as url, pytest.raises(CheckError, match=r"in\.php answered no id"):
        asked(url).solve(None, None)
