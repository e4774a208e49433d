# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client of the control socket for the command line."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlencode


class ControlError(Exception):
    """The socket does not answer, or the worker refused."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(
    path: str,
    method: str,
    target: str,
    *,
    body: Any = None,
    query: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> tuple[int, Any]:
    connection = _UnixConnection(path, timeout)
    headers = {} if body is None else {"Content-Type": "application/json"}
    payload = None if body is None else json.dumps(body)
    try:
        connection.request(method, target + ("?" + urlencode(query) if query else ""), payload, headers)
        response = connection.getresponse()
        text = response.read(1 << 20)
        return response.status, json.loads(text) if text else None
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise ControlError(f"asking {path}: {exc or type(exc).__name__}; check --socket") from exc
    finally:
        connection.close()


def checked(answer: tuple[int, Any]) -> Any:
    status, document = answer
    if status >= 400:
        detail = document.get("detail") if isinstance(document, dict) else None
        raise ControlError(f"the worker refused ({status}): {detail or document}")
    return document
