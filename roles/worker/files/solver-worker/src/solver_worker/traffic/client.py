# SPDX-License-Identifier: GPL-3.0-or-later
"""One request to one worker, and what its outcome means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

ACCEPTED, DECLINED, UNSURE, REJECTED = "accepted", "declined", "unsure", "rejected"


@dataclass(frozen=True)
class Outcome:
    """kind: accepted (id known) · declined (certainly not accepted) · unsure · rejected (our mistake)."""

    kind: str
    why: str
    id: str = ""
    # Nothing was sent, so it says nothing about an earlier request with the same key.
    unsent: bool = False


@dataclass(frozen=True)
class Answer:
    """status 0: no answer from the worker."""

    status: int
    document: dict[str, Any] = field(default_factory=dict)
    why: str = ""


class Client:
    def __init__(self, http: aiohttp.ClientSession, workers: Mapping[str, str], token: str | None) -> None:
        self._http = http
        self._workers = workers
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def submit(self, worker: str, key: str, body: Mapping[str, str]) -> Outcome:
        answer = await self._call(
            "POST",
            worker,
            "/v1/tasks",
            limit_s=30.0,
            body=body,
            headers={"Idempotency-Key": key, **self._headers},
        )
        return judge(answer)

    async def submit_and_cut(self, worker: str, key: str, body: Mapping[str, str], when: str) -> Outcome:
        """Send a whole request and cut the connection; 'answered': not before the answer begins."""
        parts = urlsplit(self._workers[worker])
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        except (OSError, TimeoutError) as problem:
            return Outcome(DECLINED, f"not connected: {type(problem).__name__}", unsent=True)
        try:
            async with asyncio.timeout(10):
                writer.write(self._raw(parts.netloc, key, body))
                await writer.drain()
                if when == "answered":
                    await reader.read(1)
        except (OSError, TimeoutError):
            pass  # as unknown as the cut itself
        finally:
            writer.transport.abort()
        return Outcome(UNSURE, "cut on purpose")

    def _raw(self, host: str, key: str, body: Mapping[str, str]) -> bytes:
        content = json.dumps(body).encode()
        headers = {
            "Host": host,
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "Idempotency-Key": key,
            **self._headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /v1/tasks HTTP/1.1\r\n{head}\r\n".encode() + content

    async def read(self, worker: str, task_id: str, wait: float) -> Answer:
        path = f"/v1/tasks/{quote(task_id)}?wait={wait:.0f}"
        return await self._call("GET", worker, path, limit_s=wait + 10, headers=self._headers)

    async def delete(self, worker: str, task_id: str) -> Answer:
        return await self._call("DELETE", worker, f"/v1/tasks/{quote(task_id)}", limit_s=10.0, headers=self._headers)

    async def healthy(self, worker: str) -> bool:
        return (await self._call("GET", worker, "/healthz", limit_s=1.0)).status == 200

    async def _call(
        self,
        method: str,
        worker: str,
        path: str,
        *,
        limit_s: float,
        body: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        limits = aiohttp.ClientTimeout(total=limit_s, sock_connect=2.0)
        try:
            async with self._http.request(
                method, self._workers[worker] + path, json=body, headers=headers, timeout=limits
            ) as reply:
                return Answer(reply.status, _document(await reply.text()))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as problem:
            return Answer(0, why=f"not connected: {type(problem).__name__}")
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError) as problem:
            return Answer(0, why=f"no answer: {type(problem).__name__}")


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def judge(answer: Answer) -> Outcome:
    """What an answer to a submit means, as the data API defines it."""
    if answer.status in (200, 202):
        task_id = answer.document.get("id")
        if isinstance(task_id, str) and task_id:
            return Outcome(ACCEPTED, "known" if answer.status == 200 else "new", task_id)
        return Outcome(UNSURE, f"{answer.status} without an id")
    if answer.status in (429, 503):
        return Outcome(DECLINED, str(answer.status))
    if answer.status == 0:
        unsent = answer.why.startswith("not connected")
        return Outcome(DECLINED if unsent else UNSURE, answer.why, unsent=unsent)
    if 400 <= answer.status < 500:
        return Outcome(REJECTED, f"{answer.status} {answer.document.get('code', '')}".strip())
    return Outcome(UNSURE, str(answer.status))
