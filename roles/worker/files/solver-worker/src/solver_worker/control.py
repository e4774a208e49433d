# SPDX-License-Identifier: GPL-3.0-or-later
"""The control API: HTTP on a Unix socket whose file mode is the authentication."""

from __future__ import annotations

import socket
import struct
from typing import Any

from aiohttp import web

from . import drain as drains
from . import logs, probe, status
from .clock import rfc3339
from .drain import BadFieldError, Drain
from .lifecycle import FAILED, RECOVERING, STARTING, STOPPING, Worker
from .problem import Handler, ProblemError, middleware, read_json, wait_seconds

STATES = ("starting", "recovering", "running", "draining", "drained", "stopping", "failed")
MAX_BODY = 1 << 20


def application(worker: Worker) -> web.Application:
    control = _Control(worker)
    app = web.Application(middlewares=[middleware, _only_local_tools], client_max_size=MAX_BODY)
    app.router.add_get("/", control.versions, allow_head=False)
    app.router.add_get("/v1/status", control.status, allow_head=False)
    app.router.add_put("/v1/drain", control.put_drain)
    app.router.add_delete("/v1/drain", control.delete_drain)
    app.router.add_post("/v1/probe", control.probe)
    return app


@web.middleware
async def _only_local_tools(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A browser that was talked into reaching us betrays itself by these headers."""
    if "Origin" in request.headers:
        raise ProblemError(403, "origin_refused", "requests with an Origin header are refused")
    if (request.headers.get("Host") or "localhost").partition(":")[0] != "localhost":
        raise ProblemError(403, "host_refused", "the Host header must be localhost")
    return await handler(request)


def peer(request: web.Request) -> dict[str, int | None]:
    """Who is at the other end, for the log."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or not hasattr(socket, "SO_PEERCRED"):
        return {"pid": None, "uid": None, "gid": None}
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return {"pid": pid, "uid": uid, "gid": gid}


class _Control:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def versions(self, _request: web.Request) -> web.Response:
        return web.json_response({"versions": ["v1"]})

    async def status(self, request: web.Request) -> web.Response:
        worker = self._worker
        until = _until(request)
        await _await_state(worker, wait_seconds(request), until)
        return web.json_response(status.build(worker))

    async def put_drain(self, request: web.Request) -> web.Response:
        worker = self._worker
        self._refuse_in(STARTING, STOPPING, FAILED)
        try:
            wish = drains.parse_request(await read_json(request))
        except BadFieldError as exc:
            raise ProblemError(400, "bad_field", str(exc), field=exc.field) from exc
        if worker.phase == RECOVERING:
            await _await_state(worker, 30.0, {"running", "draining", "drained", "failed"})
        self._refuse_in(STARTING, RECOVERING, STOPPING, FAILED)
        decision = worker.put_drain(wish)
        if decision.status == 409:
            raise self._held_by(decision.drain)
        _log_change(request, "drain", owner=wish["owner"], answer=decision.status, fields=sorted(wish))
        return web.json_response(status.build(worker), status=decision.status)

    async def delete_drain(self, request: web.Request) -> web.Response:
        worker = self._worker
        self._refuse_in(STARTING, RECOVERING, STOPPING, FAILED)
        owner = request.query.get("owner", "")
        if not 1 <= len(owner) <= 200 or not owner.isprintable():
            raise ProblemError(400, "bad_field", "owner is required: ?owner=O, 1 to 200 characters", field="owner")
        outcome = worker.delete_drain(owner, _steal(request))
        if outcome == "foreign" and worker.drain is not None:
            raise self._held_by(worker.drain)
        _log_change(request, "resume", owner=owner, outcome=outcome)
        if outcome == "none":
            return web.Response(status=204)
        return web.json_response(status.build(worker))

    async def probe(self, request: web.Request) -> web.Response:
        worker = self._worker
        self._refuse_in(STARTING, RECOVERING, STOPPING, FAILED)
        try:
            wish = probe.parse(await read_json(request))
        except BadFieldError as exc:
            raise ProblemError(400, "bad_field", str(exc), field=exc.field) from exc
        assert worker.prober is not None
        _log_change(request, "probe", request_id=wish.request_id)
        try:
            return web.json_response(await worker.prober.run(wish, worker.identity))
        except probe.ProbeRunningError as exc:
            raise ProblemError(409, "probe_running", "another probe runs", request_id=exc.request_id) from exc

    def _refuse_in(self, *phases: str) -> None:
        if self._worker.phase in phases:
            raise ProblemError(503, "not_now", f"the worker is {self._worker.state}", state=self._worker.state)

    def _held_by(self, drain: Drain) -> ProblemError:
        clock = self._worker.clock
        return ProblemError(
            409,
            "drained_by_another",
            f"{drain.owner} drains this worker",
            owner=drain.owner,
            reason=drain.reason,
            lease_expires_at=rfc3339(clock.now() + drain.lease_ends - clock.boot()),
        )


def _until(request: web.Request) -> set[str]:
    until = {item for item in request.query.get("until", "").split(",") if item}
    unknown = until - set(STATES)
    if unknown:
        raise ProblemError(400, "bad_field", "until must name states: " + ", ".join(STATES), field="until")
    return until


def _steal(request: web.Request) -> bool:
    text = request.query.get("steal", "false")
    if text not in ("true", "false"):
        raise ProblemError(400, "bad_field", "steal must be true or false", field="steal")
    return text == "true"


async def _await_state(worker: Worker, wait: float, until: set[str]) -> None:
    """Returns early when the process stops: a waiting client gets an answer, not a broken connection."""
    began, ends = worker.seq, worker.clock.boot() + wait
    while worker.phase != STOPPING:
        reached = worker.state in until if until else worker.seq != began
        left = ends - worker.clock.boot()
        if reached or left <= 0:
            return
        await worker.changes.wait(left)


def _log_change(request: web.Request, event: str, **fields: Any) -> None:
    logs.info(event, peer=peer(request), **fields)
