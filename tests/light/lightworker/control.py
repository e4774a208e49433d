# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls of the control API (docs/control-api.md), and the status document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from solver_worker import drain as drains
from solver_worker import standby as standbys
from solver_worker.clock import rfc3339
from solver_worker.drain import BadFieldError, Moment
from solver_worker.errors import NotTakenOverError

from .behaviour import merged
from .http import ProblemError, Request

if TYPE_CHECKING:
    from .standby import Standby
    from .worker import Worker

FEATURES = ["drain.lease", "drain.persist", "probe", "wait", "handover", "verify", "peer_log", "solve_histogram",
            "failure_classes", "standby"]
STATES = ("starting", "recovering", "running", "draining", "drained", "stopping", "failed", "standby")
PROBE_FIELDS = ("request_id", "task", "expect", "timeout_s")

Answer = tuple[int, Any]


async def answer(worker: Worker, request: Request, peer: int) -> Answer:
    if "origin" in request.headers:
        raise ProblemError(403, "origin_refused", "requests with an Origin header are refused")
    if request.headers.get("host", "localhost").partition(":")[0] != "localhost":
        raise ProblemError(403, "host_refused", "the Host header must be localhost")
    calls = CALLS.get(request.path)
    if calls is None:
        raise ProblemError(404, "not_found", "Not Found")
    if request.method not in calls:
        raise ProblemError(405, "method_not_allowed", "Method Not Allowed")
    return await calls[request.method](worker, request, peer)


async def _versions(_worker: Worker, _request: Request, _peer: int) -> Answer:
    return 200, {"versions": ["v1"]}


async def _status(worker: Worker, request: Request, _peer: int) -> Answer:
    until = {state for state in request.query.get("until", "").split(",") if state}
    if until - set(STATES):
        raise _bad("until", "must name states: " + ", ".join(STATES))
    began, ends = worker.seq, worker.host.clock.boot() + _wait_seconds(request)
    while worker.phase not in ("stopping", None):
        left = ends - worker.host.clock.boot()
        if left <= 0 or (worker.state in until if until else worker.seq != began):
            break
        await worker.changes.wait(left)
    return 200, status(worker)


def _wait_seconds(request: Request) -> float:
    try:
        value = float(request.query.get("wait", "0"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60:
        raise _bad("wait", "must be a number of seconds from 0 to 60")
    return value


async def _put_drain(worker: Worker, request: Request, peer: int) -> Answer:
    _refuse(worker)
    wish = _parsed(drains.parse_request, request)
    decision = worker.put_drain(wish)
    if decision.status == 409:
        raise _held(worker)
    worker.host.log(worker.name, drain=wish["owner"], answer=decision.status, peer=peer)
    return decision.status, status(worker)


async def _delete_drain(worker: Worker, request: Request, peer: int) -> Answer:
    _refuse(worker)
    owner, steal = request.query.get("owner", ""), request.query.get("steal", "false")
    if not owner:
        raise _bad("owner", "is required: ?owner=O")
    if steal not in ("true", "false"):
        raise _bad("steal", "must be true or false")
    outcome = worker.delete_drain(owner, steal == "true")
    if outcome == "foreign":
        raise _held(worker)
    worker.host.log(worker.name, resume=owner, outcome=outcome, peer=peer)
    return (204, None) if outcome == "none" else (200, status(worker))


async def _probe(worker: Worker, request: Request, _peer: int) -> Answer:
    if worker.phase != "standby":
        _refuse(worker)
    return 200, await worker.probe(**_parsed(_probe_wish, request))


async def _renew_standby(worker: Worker, request: Request, _peer: int) -> Answer:
    wish = _parsed(standbys.parse_renewal, request)
    standby = _standing_by(worker)
    if not standby.renew(wish):
        raise _held_standby(standby)
    return 200, status(standby)


async def _end_standby(worker: Worker, request: Request, _peer: int) -> Answer:
    owner, standby = request.query.get("owner", ""), _standing_by(worker)
    if not owner:
        raise _bad("owner", "is required: ?owner=O")
    if owner != standby.wanted.owner and request.query.get("steal") != "true":
        raise _held_standby(standby)
    document = status(standby)
    standby.end()
    return 200, document


async def _take_over(worker: Worker, request: Request, _peer: int) -> Answer:
    wish = _parsed(standbys.parse_take_over, request)
    standby = _standing_by(worker)
    if wish["owner"] != standby.wanted.owner:
        raise _held_standby(standby)
    try:
        await standby.take_over(wish["owner"])
    except NotTakenOverError as exc:
        raise ProblemError(409, exc.code, str(exc)) from exc
    return 200, status(standby.serves)


def _standing_by(worker: Worker) -> Standby:
    if worker.phase != "standby":
        raise ProblemError(503, "not_now", f"the worker is {worker.state}, no standby", state=worker.state)
    return cast("Standby", worker)


def _held_standby(standby: Standby) -> ProblemError:
    more = {name: standby.standby()[name] for name in ("owner", "reason", "lease_expires_at")}
    return ProblemError(409, "standby_of_another", f"{more['owner']} has this worker", **more)


def _probe_wish(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise BadFieldError("body", "must be a JSON object")
    unknown = sorted(set(body) - set(PROBE_FIELDS))
    if unknown:
        raise BadFieldError(unknown[0], "is unknown; known: " + ", ".join(PROBE_FIELDS))
    request_id, expect, timeout_s = body.get("request_id"), body.get("expect"), body.get("timeout_s", 90.0)
    if not isinstance(request_id, str) or not 1 <= len(request_id) <= 200:
        raise BadFieldError("request_id", "is required: 1 to 200 characters, new for each probe")
    if not isinstance(expect, str | None):
        raise BadFieldError("expect", "must be text")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 1 <= timeout_s <= 900:
        raise BadFieldError("timeout_s", "must be a number from 1 to 900")
    _check_task(body.get("task"))
    # What another task shows nobody knows here: it is solved as expected.
    wanted = {} if expect is None or body.get("task") is not None else {"expect": expect}
    return {"request_id": request_id, "timeout_s": float(timeout_s), **wanted}


def _check_task(task: Any) -> None:
    if task is None:
        return
    if not isinstance(task, Mapping) or not all(isinstance(value, str) for value in task.values()):
        raise BadFieldError("task", "must be a JSON object of strings, the fields of in.php")
    if not task.get("method"):
        raise BadFieldError("task", "must name its method")


def _parsed(parse: Callable[[Any], dict[str, Any]], request: Request) -> dict[str, Any]:
    try:
        return parse(request.json())
    except BadFieldError as exc:
        raise ProblemError(400, "bad_field", str(exc), field=exc.field) from exc


def _refuse(worker: Worker) -> None:
    if worker.phase != "serving":
        raise ProblemError(503, "not_now", f"the worker is {worker.state}", state=worker.state)


def _bad(field: str, text: str) -> ProblemError:
    return ProblemError(400, "bad_field", f"{field} {text}", field=field)


def _held(worker: Worker) -> ProblemError:
    drain = _described(worker) or {}
    more = {name: drain[name] for name in ("owner", "reason", "lease_expires_at")}
    return ProblemError(409, "drained_by_another", f"{drain['owner']} drains this worker", **more)


CALLS: dict[str, dict[str, Callable[[Worker, Request, int], Awaitable[Answer]]]] = {
    "/": {"GET": _versions},
    "/v1/status": {"GET": _status},
    "/v1/drain": {"PUT": _put_drain, "DELETE": _delete_drain},
    "/v1/probe": {"POST": _probe},
    "/v1/standby": {"PUT": _renew_standby, "DELETE": _end_standby},
    "/v1/standby/take-over": {"POST": _take_over},
}


# -- the status document


def status(worker: Worker) -> Any:
    worker.refresh()
    behaviour, now = worker.behaviour, rfc3339(worker.host.clock.now())
    document = {
        "schema": "solver.worker.status/1",
        "api": {"versions": ["v1"], "features": FEATURES},
        "instance": {
            "name": worker.name,
            "version": behaviour.version or worker.version,
            "release": worker.release,
            "boot_id": worker.boot_id,
            "pid": worker.pid,
            "started_at": rfc3339(worker.started_at),
            "restarts": worker.restarts,
        },
        "state": worker.state,
        "since": rfc3339(worker.since),
        "seq": worker.seq,
        "accepting": worker.accepting,
        "safe_to_stop": worker.safe_to_stop,
        "idle": worker.books.open == 0 and not worker.probing,
        "drain": _described(worker),
        **dict.fromkeys(("tasks", "totals", "solve_times", "provider", "journal", "standby", "failure")),
    }
    if worker.phase == "failed":
        document["failure"] = {"code": behaviour.failed, "message": "a test wants it to fail"}
    elif worker.phase == "standby":
        document["standby"] = _standing_by(worker).standby()
    elif worker.phase != "starting":
        document.update(_from_journal(worker, now))
    return document if behaviour.status is None else merged(document, behaviour.status)


def _from_journal(worker: Worker, now: str | None) -> dict[str, Any]:
    count, p50, p99 = worker.books.open, worker.solve_s, max(worker.own_drain_s, worker.solve_s)
    return {
        "tasks": {"open": count, "accepted": 0, "submitting": 0, "polling": count, "unfetched": 0,
                  "oldest_age_s": p50 if count else None},
        "totals": dict(worker.books.totals),
        "failures": dict(worker.books.failures), "solve_histogram": list(worker.books.histogram),
        "solve_times": {"count": 500, "p50_s": p50, "p99_s": round(p99, 3)},
        "provider": {"ok": True, "last_ok_at": now, "balance": "12.34", "balance_at": now, "last_error": None},
        "journal": {"id": worker.journal_id, "schema": 1, "min_reader": 1, "writable": True},
    }


def _described(worker: Worker) -> dict[str, Any] | None:
    clock = worker.host.clock
    return drains.describe(worker.timed_drain, Moment(clock.boot(), clock.now()))
