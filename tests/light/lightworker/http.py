# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of HTTP/1.1 as a control socket needs: one request per connection."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MAX_BODY = 1 << 20


class ProblemError(Exception):
    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"code": code, "title": code.replace("_", " "), "status": status, "detail": detail, **more}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        if self.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise ProblemError(415, "not_json", "send the body as application/json")
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            raise ProblemError(400, "bad_json", "the body is not JSON in UTF-8", field="body") from exc


async def read(reader: asyncio.StreamReader) -> Request | None:
    """None for a client that went away, or that speaks something else."""
    try:
        return await _read(reader)
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _unused = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
    size = int(headers.get("content-length", "0"))
    if size > MAX_BODY:
        raise ProblemError(413, "too_large", "the body is too large")
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method, parts.path, query, headers, await reader.readexactly(size))


def answer(status: int, document: Any) -> bytes:
    body = b"" if document is None else json.dumps(document).encode("utf-8")
    kind = "application/problem+json" if status >= 400 else "application/json"
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
    if status != 204:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode("ascii") + b"\r\n" + body
