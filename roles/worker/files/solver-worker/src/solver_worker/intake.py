# SPDX-License-Identifier: GPL-3.0-or-later
"""The data API: takes tasks in, keeps each promise by its key, hands results out."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import sqlite3
from typing import Any

import aiohttp
from aiohttp import web

from . import fields, metrics, status
from .clock import rfc3339
from .drain import BadFieldError
from .errors import HandedOnError
from .journal import OPEN, Journal, Row, digest_of
from .lifecycle import RECOVERING, SERVING, Worker
from .problem import Handler, ProblemError, middleware, read_text, wait_seconds

RETRY_S = 5
NAME_HEADER = "X-Solver-Worker"


def application(worker: Worker, token: str | None) -> web.Application:
    intake = _Intake(worker)
    app = web.Application(
        middlewares=[middleware, _pass_on(worker), _authentication(token)],
        client_max_size=worker.config.data.max_body_bytes,
    )
    app.on_response_prepare.append(_name_worker(worker.config.worker.name))
    app.router.add_get("/healthz", intake.health)
    app.router.add_get("/metrics", intake.metrics, allow_head=False)
    app.router.add_post("/v1/tasks", intake.submit)
    app.router.add_get("/v1/tasks/{id}", intake.read, allow_head=False)
    app.router.add_delete("/v1/tasks/{id}", intake.fetched)
    return app


def _name_worker(name: str) -> Any:
    async def prepare(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers[NAME_HEADER] = name

    return prepare


_FORWARDED = ("Authorization", "Content-Type", "Idempotency-Key")
_RETURNED = ("Content-Type", "Retry-After", "Allow")
FORWARD_S = 30.0


def _pass_on(worker: Worker) -> Any:
    """What is in hand when a successor takes the journal, and what comes after that, is the successor's to answer."""

    @web.middleware
    async def pass_on(request: web.Request, handler: Handler) -> web.StreamResponse:
        while True:
            if worker.handed_on is None:
                try:
                    return await handler(request)
                except HandedOnError:
                    continue
            address = await asyncio.shield(worker.handed_on)
            if address is not None:
                return await forward(request, address)

    return pass_on


async def forward(request: web.Request, address: tuple[str, int]) -> web.Response:
    """Asks at ADDRESS instead, for what is there now; the connection ends with the answer."""
    query = {name: value for name, value in request.query.items() if name != "wait"}
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}{request.rel_url.raw_path}"
    headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
    body = await request.read()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FORWARD_S), auto_decompress=False) as session,
        session.request(request.method, url, params=query, data=body, headers=headers) as reply,
    ):
        kept = {name: reply.headers[name] for name in _RETURNED if name in reply.headers}
        response = web.Response(status=reply.status, body=await reply.read(), headers=kept)
    response.force_close()
    return response


def _authentication(token: str | None) -> Any:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is not None and request.path != "/healthz":
            # Bytes that are no UTF-8 come as surrogates.
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise ProblemError(401, "unauthorized", "send Authorization: Bearer with the worker's token")
        return await handler(request)

    return check


def read_task(text: str) -> dict[str, str]:
    try:
        return fields.check(fields.parse(text))
    except BadFieldError as exc:
        raise ProblemError(400, "bad_field", str(exc), field=exc.field) from exc
    except ValueError as exc:
        raise ProblemError(400, "bad_json", "the body is not JSON in UTF-8", field="body") from exc


def describe(row: Row) -> dict[str, Any]:
    error = {"code": row.error_code, "class": row.error_class} if row.error_code else None
    return {
        "id": row.id,
        "state": row.state,
        "solution": row.solution,
        "error": error,
        "accepted_at": rfc3339(row.accepted_at),
        "solved_at": rfc3339(row.solved_at),
        "expires_at": rfc3339(row.expires_at),
    }


def unavailable(code: str, detail: str, after: int = RETRY_S) -> ProblemError:
    """Means: certainly not accepted."""
    return ProblemError(503, code, detail, retry_after_s=after)


class _Intake:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def _journal(self) -> Journal:
        if self._worker.handed_on is not None:
            raise HandedOnError
        if self._worker.journal is None:
            raise unavailable("not_now", f"the worker is {self._worker.state}", 1)
        return self._worker.journal

    async def health(self, _request: web.Request) -> web.Response:
        """404 is "nothing new, but reads as before": to a router, a worker without room is like one that drains."""
        worker = self._worker
        code = {"running": 200, "draining": 404, "drained": 404}.get(worker.state, 503)
        if code == 200 and worker.refusal is not None:
            code = 404
        reason = None if worker.refusal is None else worker.refusal.code
        return web.json_response({"state": worker.state, "refusal": reason}, status=code)

    async def metrics(self, _request: web.Request) -> web.Response:
        text = metrics.text(status.build(self._worker))
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def submit(self, request: web.Request) -> web.Response:
        key = _idempotency_key(request)
        wait = wait_seconds(request)
        document = read_task(await read_text(request))
        digest = digest_of(document)
        # From here to the commit nothing awaits: two requests with one key cannot both be new.
        known = self._journal.by_key(key)
        if known is not None:
            return await self._again(known, digest, wait)
        self._refuse_new()
        task_id = f"{self._worker.config.worker.name}-{secrets.token_hex(10)}"
        self._accept(task_id, key, digest, document)
        row = await self._row_after(task_id, wait)
        if row is not None and row.state not in OPEN:
            return web.json_response(describe(row))
        return web.json_response({"id": task_id, "state": row.state if row else "accepted"}, status=202)

    async def _again(self, known: Row, digest: str, wait: float) -> web.Response:
        if not hmac.compare_digest(known.digest, digest):
            raise ProblemError(422, "key_reused", "this Idempotency-Key came with another body before")
        row = await self._row_after(known.id, wait)
        return web.json_response(describe(row or known))

    def _refuse_new(self) -> None:
        worker = self._worker
        if worker.accepting and worker.open_tasks < worker.config.data.max_open_tasks:
            return
        self._journal.count_later("refused")
        if worker.accepting:
            raise unavailable("too_many_open", "as many tasks are open as data.max_open_tasks allows")
        if worker.in_service and worker.refusal is not None:
            raise unavailable(worker.refusal.code, worker.refusal.message)
        raise unavailable("not_accepting", f"the worker is {worker.state}", 1 if worker.phase != SERVING else RETRY_S)

    def _accept(self, task_id: str, key: str, digest: str, document: dict[str, str]) -> None:
        now = self._worker.clock.now()
        try:
            self._journal.accept(
                task_id=task_id,
                key=key,
                digest=digest,
                method=document["method"],
                payload=json.dumps(document),
                at=now,
            )
        except sqlite3.Error:
            # The next client, and the router, shall not have to find out for themselves.
            self._worker.look()
            raise
        assert self._worker.engine is not None
        self._worker.engine.add(task_id, document["method"], now)

    async def _row_after(self, task_id: str, wait: float) -> Row | None:
        engine = self._worker.engine
        if wait and engine is not None and self._worker.phase == SERVING:
            await engine.wait_final(task_id, wait)
        return self._journal.by_id(task_id)

    async def read(self, request: web.Request) -> web.Response:
        task_id = self._own_id(request)
        wait = wait_seconds(request)
        row = await self._row_after(task_id, wait)
        if row is None or row.gone_at is not None:
            raise self._unknown(row)
        return web.json_response(describe(row))

    async def fetched(self, request: web.Request) -> web.Response:
        row = self._journal.by_id(self._own_id(request))
        if row is None:
            raise self._unknown(row)
        if row.state in OPEN:
            raise ProblemError(409, "still_open", "the task is still open; deleting does not cancel it")
        if row.gone_at is None:
            self._journal.fetched(row.id, self._worker.clock.now())
        return web.Response(status=204)

    def _own_id(self, request: web.Request) -> str:
        task_id = request.match_info["id"]
        owner, dash, _unused = task_id.rpartition("-")
        name = self._worker.config.worker.name
        if dash and owner != name:
            raise ProblemError(421, "wrong_worker", f"this worker is {name}, the task is {owner}'s", worker=name)
        return task_id

    def _unknown(self, row: Row | None) -> ProblemError:
        if row is None and self._worker.phase == RECOVERING:
            return unavailable("not_now", "the worker is recovering", 1)
        return ProblemError(
            404, "gone" if row else "unknown_task", "no such result: fetched, too old, or never accepted"
        )


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise ProblemError(
            400,
            "bad_field",
            "header Idempotency-Key is required: 1 to 255 printable ASCII characters",
            field="Idempotency-Key",
        )
    return key
