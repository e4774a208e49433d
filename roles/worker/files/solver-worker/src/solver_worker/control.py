# SPDX-License-Identifier: GPL-3.0-or-later
"""The control API: HTTP on a Unix socket whose file mode is the authentication."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from . import drain as drains
from . import logs, probe, status
from . import standby as standbys
from .clock import rfc3339
from .drain import BadFieldError, Drain
from .errors import NotTakenOverError
from .lifecycle import FAILED, RECOVERING, STANDBY, STARTING, STOPPING, Worker
from .problem import Handler, ProblemError, middleware, read_json, wait_seconds
from .standby import Standby

STATES = ("starting", "recovering", "running", "draining", "drained", "stopping", "failed", "standby")
MAX_BODY = 1 << 20
_NOT_SERVING = (STANDBY, STARTING, RECOVERING, STOPPING, FAILED)
Wish = TypeVar("Wish")


# Becomes the worker within so many seconds, or raises NotTakenOverError.
TakeOver = Callable[[float], Awaitable[None]]


def application(worker: Worker, take_over: TakeOver | None = None) -> web.Application:
    control = _Control(worker, take_over)
    app = web.Application(middlewares=[middleware, _only_local_tools], client_max_size=MAX_BODY)
    app.router.add_get("/", control.versions, allow_head=False)
    app.router.add_get("/v1/status", control.status, allow_head=False)
    app.router.add_put("/v1/drain", control.put_drain)
    app.router.add_delete("/v1/drain", control.delete_drain)
    app.router.add_post("/v1/probe", control.probe)
    app.router.add_put("/v1/standby", control.renew_standby)
    app.router.add_delete("/v1/standby", control.end_standby)
    app.router.add_post("/v1/standby/take-over", control.take_over)
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
    def __init__(self, worker: Worker, take_over: TakeOver | None) -> None:
        self._worker = worker
        self._take_over = take_over

    async def versions(self, _request: web.Request) -> web.Response:
        return web.json_response({"versions": ["v1"]})

    async def status(self, request: web.Request) -> web.Response:
        worker = self._worker
        until = _until(request)
        await _await_state(worker, wait_seconds(request), until)
        return web.json_response(status.build(worker))

    async def put_drain(self, request: web.Request) -> web.Response:
        worker = self._worker
        self._refuse_in(STANDBY, STARTING, STOPPING, FAILED)
        wish = _parsed(drains.parse_request, await read_json(request))
        if worker.phase == RECOVERING:
            await _await_state(worker, 30.0, {"running", "draining", "drained", "failed"})
        self._refuse_in(*_NOT_SERVING)
        decision = worker.put_drain(wish)
        if decision.status == 409:
            raise self._held_by("drained_by_another", decision.drain)
        _log_change(request, "drain", owner=wish["owner"], answer=decision.status, fields=sorted(wish))
        return web.json_response(status.build(worker), status=decision.status)

    async def delete_drain(self, request: web.Request) -> web.Response:
        worker = self._worker
        self._refuse_in(*_NOT_SERVING)
        owner = _owner(request)
        outcome = worker.delete_drain(owner, _steal(request))
        if outcome == "foreign" and worker.drain is not None:
            raise self._held_by("drained_by_another", worker.drain)
        _log_change(request, "resume", owner=owner, outcome=outcome)
        if outcome == "none":
            return web.Response(status=204)
        return web.json_response(status.build(worker))

    async def probe(self, request: web.Request) -> web.Response:
        worker = self._worker
        self._refuse_in(STARTING, RECOVERING, STOPPING, FAILED)
        wish = _parsed(probe.parse, await read_json(request))
        _log_change(request, "probe", request_id=wish.request_id)
        try:
            return web.json_response(await worker.probe(wish))
        except probe.ProbeRunningError as exc:
            raise ProblemError(409, "probe_running", "another probe runs", request_id=exc.request_id) from exc

    async def renew_standby(self, request: web.Request) -> web.Response:
        wish = _parsed(standbys.parse_renewal, await read_json(request))
        standby = self._standing_by()
        try:
            renewed = self._worker.renew_standby(wish)
        except OSError as exc:
            raise ProblemError(503, "order_unwritable", f"writing the order: {exc}; nothing was changed") from exc
        if not renewed:
            raise self._held_by("standby_of_another", standby)
        _log_change(request, "renew standby", owner=wish["owner"], fields=sorted(wish))
        return web.json_response(status.build(self._worker))

    async def end_standby(self, request: web.Request) -> web.Response:
        owner, standby = _owner(request), self._standing_by()
        if owner != standby.owner and not _steal(request):
            raise self._held_by("standby_of_another", standby)
        _log_change(request, "end standby", owner=owner)
        self._worker.end()
        return web.json_response(status.build(self._worker))

    def _standing_by(self) -> Standby:
        standby = self._worker.standby
        if standby is None or standby.taking_over:
            what = "takes over" if standby else f"is {self._worker.state}, no standby"
            raise ProblemError(503, "not_now", f"the worker {what}", state=self._worker.state)
        return standby

    async def take_over(self, request: web.Request) -> web.Response:
        wish = _parsed(standbys.parse_take_over, await read_json(request))
        standby = self._worker.standby
        if standby is None or self._take_over is None:
            raise ProblemError(503, "not_now", f"the worker is {self._worker.state}, no standby")
        if wish["owner"] != standby.owner:
            raise self._held_by("standby_of_another", standby)
        _log_change(request, "take over", owner=wish["owner"])
        try:
            await self._take_over(wish["within_s"])
        except NotTakenOverError as exc:
            raise ProblemError(409, exc.code, str(exc)) from exc
        return web.json_response(status.build(self._worker))

    def _refuse_in(self, *phases: str) -> None:
        if self._worker.phase in phases:
            raise ProblemError(503, "not_now", f"the worker is {self._worker.state}", state=self._worker.state)

    def _held_by(self, code: str, holder: Drain | Standby) -> ProblemError:
        clock = self._worker.clock
        return ProblemError(
            409,
            code,
            f"{holder.owner} {'drains' if isinstance(holder, Drain) else 'has'} this worker",
            owner=holder.owner,
            reason=holder.reason,
            lease_expires_at=rfc3339(clock.now() + holder.lease_ends - clock.boot()),
        )


def _parsed(parse: Callable[[Any], Wish], body: Any) -> Wish:
    try:
        return parse(body)
    except BadFieldError as exc:
        raise ProblemError(400, "bad_field", str(exc), field=exc.field) from exc


def _owner(request: web.Request) -> str:
    owner = request.query.get("owner", "")
    if not 1 <= len(owner) <= 200 or not owner.isprintable():
        raise ProblemError(400, "bad_field", "owner is required: ?owner=O, 1 to 200 characters", field="owner")
    return owner


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
