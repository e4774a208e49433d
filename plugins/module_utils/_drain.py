# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Draining one worker and putting it back: decisions over plain data, and the flow that carries them out."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, Callable, Dict, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._client import (
    AccessDenied,
    ApiProblem,
    BrokenOff,
    DeadSocket,
    Finding,
    Foreign,
    Hung,
    NoSocket,
    WorkerClient,
)
from ansible_collections.solver.fleet.plugins.module_utils._drain_clock import DrainClock
from ansible_collections.solver.fleet.plugins.module_utils._errors import WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._result import LEASE_S, host_clock, remaining_of
from ansible_collections.solver.fleet.plugins.module_utils._wait import SHORTEST_ROUND_S, SLICE_S, Clock, Span

Json = Dict[str, Any]

# After the deadline a hand-over may take this long: it only waits for the in.php calls on the wire.
HANDOVER_EXTRA_S = 30.0
# A worker that crashes while it drains comes back held; so long may that take before we call it gone.
ABSENCE_S = 10.0
P99_MARGIN = 1.3
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
_ENDS = ("drained", "running", "stopping", "failed")


class DrainOptions(NamedTuple):
    """The options of worker_drain that decide anything; documented there."""

    owner: str
    reason: str = ""
    mode: str = "complete"
    timeout: float = 120.0
    grace: float = 5.0
    lease: float = LEASE_S
    on_expire: str | None = None
    on_timeout: str = "return_to_service"
    accept_loss: bool = False
    steal: bool = False
    wait_slice: float = SLICE_S
    absent_ok: bool = False
    hung_ok: bool = False


def option_defect(options: DrainOptions) -> str | None:
    """Say which option makes no sense, and what would; None if all do."""
    checks = (
        (not options.owner.strip(), "owner is empty: give the id of the rollout"),
        (not 0 <= options.wait_slice <= SLICE_S, f"wait_slice must be from 0 to {SLICE_S:g} seconds"),
        (not 5 <= options.lease <= 86400, "lease must be from 5 to 86400 seconds"),
        (not 0 <= options.grace <= 86400, "grace must be from 0 to 86400 seconds"),
        (not 0 < options.timeout <= 86400, "timeout must be more than 0 and at most 86400 seconds"),
        (
            options.on_timeout == "force" and not options.accept_loss,
            "on_timeout=force drops what is still open: set accept_loss=true (solver_accept_loss) to accept that",
        ),
        (
            options.hung_ok and not options.accept_loss,
            "hung_ok leaves nothing but to end the process: set accept_loss=true (solver_accept_loss) to accept that",
        ),
    )
    return next((text for wrong, text in checks if wrong), None)


def parse_time(text: Any) -> float | None:
    """Seconds since the epoch of an RFC 3339 time, None if it is not one."""
    found = _TIME.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    zone = "+00:00" if found.group(3) == "Z" else found.group(3)
    try:
        whole = datetime.fromisoformat(found.group(1) + zone).timestamp()
    except ValueError:
        return None
    return whole + float(found.group(2) or 0)


def elapsed_of(drain: Json | None, wall: float) -> float:
    """How long a drain has lasted by the worker's own record, so that repeated calls continue one drain."""
    began = parse_time((drain or {}).get("requested_at"))
    return 0.0 if began is None else max(0.0, wall - began)


def drain_of(status: Json | None, owner: str) -> Json | None:
    """The worker's drain if it is ours."""
    drain = (status or {}).get("drain")
    return drain if drain and drain.get("owner") == owner else None


def foreign_drain_of(status: Json, owner: str) -> Json | None:
    """A live drain of somebody else. An expired one is free to be taken over."""
    drain = status.get("drain")
    if not drain or drain.get("owner") == owner or drain.get("expired"):
        return None
    return dict(drain)


def is_drained(status: Json | None, owner: str) -> bool:
    return bool(
        status and drain_of(status, owner) and status["state"] == "drained" and status["safe_to_stop"]
    )


def wanted_mode(options: DrainOptions, drain: Json, elapsed: float) -> str:
    """A drain that fell back to handover at its deadline stays there when the call is repeated."""
    fell_back = (
        options.on_timeout == "handover" and drain.get("mode") == "handover" and elapsed >= options.timeout
    )
    return "handover" if fell_back else options.mode


def drain_body(options: DrainOptions, drain: Json | None, elapsed: float, foreign: bool) -> Json:
    """What to ask of the worker: everything for a new drain, only what differs for a renewal."""
    body: Json = {"owner": options.owner, "lease_s": options.lease}
    if drain is None:
        body.update(
            reason=options.reason,
            mode=options.mode,
            grace_s=options.grace,
            deadline_s=options.timeout,
            on_deadline="wait",
            on_expire=options.on_expire or "resume",
        )
        if options.steal and foreign:
            body["steal"] = True
        return body
    wishes = {"mode": wanted_mode(options, drain, elapsed), "on_expire": options.on_expire}
    if options.reason:
        wishes["reason"] = options.reason
    body.update({name: value for name, value in wishes.items() if value and drain.get(name) != value})
    return body


def body_changes(drain: Json | None, body: Json) -> bool:
    """Whether the request is more than a renewed lease."""
    return drain is None or bool(set(body) - {"owner", "lease_s"})


def missing_feature(options: DrainOptions, status: Json) -> str | None:
    """An option that this worker cannot honour, said before anything is touched."""
    features = status["api"].get("features") or []
    needs = (
        (options.mode == "handover", "handover", "mode=handover", "set mode=complete (solver_drain_mode)"),
        (
            options.on_timeout == "handover",
            "handover",
            "on_timeout=handover",
            "set on_timeout=return_to_service (solver_on_drain_timeout)",
        ),
        (options.on_expire == "verify", "verify", "on_expire=verify", "set on_expire=resume or hold"),
    )
    for wanted, feature, option, remedy in needs:
        if wanted and feature not in features:
            return f"{option} needs the feature '{feature}', which this worker does not have: {remedy}"
    return None


def slow_solves_warning(options: DrainOptions, status: Json) -> str | None:
    """A drain timeout below what this worker's own solves take will probably be reached."""
    p99 = (status.get("solve_times") or {}).get("p99_s")
    if options.mode != "complete" or p99 is None or p99 * P99_MARGIN <= options.timeout:
        return None
    return (
        f"99 % of this worker's solves end within {p99:.0f} s; a drain timeout of {options.timeout:g} s"
        f" leaves no margin, {p99 * P99_MARGIN:.0f} s would (timeout, solver_drain_timeout)"
    )


def summary_of(status: Json | None) -> Json:
    """The few fields that a diff shows."""
    drain = (status or {}).get("drain")
    names = ("owner", "reason", "mode", "on_expire")
    return {
        "state": (status or {}).get("state"),
        "drain": {name: drain.get(name) for name in names} if drain else None,
    }


def name_of(status: Json | None, socket_path: str) -> str:
    name = ((status or {}).get("instance") or {}).get("name")
    return f"worker '{name}'" if name else f"the worker at '{socket_path}'"


def foreign_drain(holder: Json) -> WorkerError:
    details = {name: holder.get(name) for name in ("owner", "reason", "lease_expires_at")}
    reason = f" ({details['reason']})" if details["reason"] else ""
    return WorkerError(
        "foreign_drain",
        f"it is drained by '{details['owner']}'{reason} until {details['lease_expires_at']};"
        " wait for that, or end it with resume.yml (solver_resume_foreign: true; of a module: steal=true)",
        details,
    )


def loss_of(status: Json, owner: str) -> WorkerError | None:
    """Why a drain that had begun cannot come to its end any more; None while it can."""
    if status["state"] == "failed":
        cause = status.get("failure") or {}
        return WorkerError(
            "worker_failed",
            f"it has failed: {cause.get('message') or cause.get('code') or 'no cause given'}",
            {"failure": cause},
        )
    if status["state"] in ("stopping", "starting", "recovering") or drain_of(status, owner):
        return None
    if status.get("drain"):
        return foreign_drain(status["drain"])
    return WorkerError("drain_lost", "the drain was ended by somebody else, or its lease ran out")


class DrainFlow:
    """One call of worker_drain. C(result) is complete at any moment, so that a failure returns it too."""

    def __init__(
        self,
        client: WorkerClient,
        options: DrainOptions,
        *,
        check_mode: bool = False,
        clock: Clock | None = None,
        wall: Callable[[], float] | None = None,
        began: DrainClock | None = None,
    ) -> None:
        self.client = client
        self.options = options
        self.check_mode = check_mode
        self.clock = clock or Clock()
        self.wall = wall or (lambda: datetime.now(timezone.utc).timestamp())
        self.began = began or DrainClock()
        self.span = Span(self.clock, self._slice())
        self.status: Json | None = None
        self.absent_since: float | None = None
        self.warnings: list[str] = []
        self.result: Json = {
            "changed": False,
            "done": False,
            "began": False,
            "forced": False,
            "fallback": False,
            "gave_back": False,
            "finding": "answering",
            "open_at_drain": None,
            "elapsed_s": 0.0,
            "remaining": None,
            "drain": None,
            "worker": None,
            "diff": {"before": {}, "after": {}},
        }

    def _slice(self) -> float:
        # Never longer than half a lease: it must not run out while we wait.
        return min(self.options.wait_slice, SLICE_S, self.options.lease / 2)

    # --- what both states share ---

    def _see(self, status: Json) -> Json:
        self.status = status
        self.absent_since = None
        self.result.update(
            finding="answering",
            worker=status,
            drain=status.get("drain"),
            remaining=remaining_of(status),
            elapsed_s=round(self.span.elapsed(), 3),
        )
        self.result["diff"]["after"] = summary_of(status)
        return status

    def _first_look(self) -> Json:
        status = self._see(self.client.status())
        self.result["diff"]["before"] = summary_of(status)
        return status

    def name(self) -> str:
        return name_of(self.status, self.client.socket_path)

    def _done(self) -> None:
        self.result["done"] = True
        self.result["elapsed_s"] = round(self.span.elapsed(), 3)

    def finish(self) -> Json:
        return dict(self.result, host_clock=host_clock())

    # --- state: drained ---

    def drain(self) -> None:
        """Drain, or go on with a drain that an earlier call began."""
        try:
            status = self._first_look()
        except Finding as error:
            self._absent(error)
            return
        if (status["state"] == "failed" and self.options.absent_ok) or self._stuck():
            self._done()
            return
        status = self.status or status
        drain = self._claimable(status)
        self.span = Span(self.clock, self._slice(), self._lasted(drain))
        body = drain_body(self.options, drain, self.span.elapsed(), foreign=status.get("drain") is not None)
        self.result["changed"] = body_changes(drain, body)
        if self.check_mode:
            self._predict(drain, body)
            return
        if not self._settled():
            return
        try:
            self._claim(drain, body)
            self._await_drained()
        except WorkerError as error:
            # Whoever is silent may have heard it all the same.
            self.result["began"] = self.result["began"] or (drain is None and isinstance(error, Hung))
            if self.result["began"]:
                self._give_back()
            raise

    def _lasted(self, drain: Json | None) -> float:
        if drain is None:
            return 0.0
        steady = self.began.elapsed(drain)
        return elapsed_of(drain, self.wall()) if steady is None else steady

    def _settled(self) -> bool:
        """A process that is coming up takes no drain yet; False when this call ends before it does."""
        while self.status is not None and self.status["state"] in ("starting", "recovering"):
            if self.span.slice_left() <= 0:
                return False
            started = self.span.in_call()
            ends = ("running", "draining", *_ENDS)
            self._see(self.client.status(min(self.span.slice_left(), 5.0), ends))
            self.span.pause(SHORTEST_ROUND_S - (self.span.in_call() - started))
        return True

    def _absent(self, error: Finding) -> None:
        """A process that is not there holds nothing: drained by nature, if the caller expected it."""
        self.result["finding"] = error.code
        if self.options.hung_ok and isinstance(error, Hung):
            self.result["forced"] = True
            self._done()
            return
        if not self.options.absent_ok or not isinstance(error, (NoSocket, DeadSocket)):
            raise error
        self._done()

    def _stuck(self) -> bool:
        """Whether a process that takes no drain stays as it is, so that only its end is left."""
        if not self.options.hung_ok or self.check_mode:
            return False
        while self.status is not None and self.status["state"] in ("starting", "stopping"):
            if self.span.slice_left() <= 0:
                self.result["forced"] = True
                return True
            started = self.span.in_call()
            others = ("recovering", "running", "draining", "drained", "failed")
            self._see(self.client.status(min(self.span.slice_left(), 5.0), others))
            self.span.pause(SHORTEST_ROUND_S - (self.span.in_call() - started))
        return False

    def _claimable(self, status: Json) -> Json | None:
        """Our own drain or None; refuses what must not be drained, before anything is touched."""
        lack = missing_feature(self.options, status)
        if lack:
            raise WorkerError("feature_missing", lack)
        foreign = foreign_drain_of(status, self.options.owner)
        if foreign and not self.options.steal:
            raise foreign_drain(foreign)
        drain = drain_of(status, self.options.owner)
        warning = slow_solves_warning(self.options, status)
        if warning and drain is None:
            self.warnings.append(warning)
        return drain

    def _predict(self, drain: Json | None, body: Json) -> None:
        wanted = dict(drain or {}, **{k: v for k, v in body.items() if k not in ("lease_s", "steal")})
        self.result["diff"]["after"] = summary_of({"state": "drained", "drain": wanted})
        self._done()

    def _claim(self, drain: Json | None, body: Json) -> None:
        code, status = self._put(body)
        self._see(status)
        self.result["began"] = drain is None
        # After a lost answer the repeated PUT says 200: what we saw before it counts.
        if code == 202 or drain is None:
            self.result["open_at_drain"] = (status.get("tasks") or {}).get("open")
            self.result["changed"] = True
            self.began.begin(status.get("drain"))
        else:
            self.began.adopt(status.get("drain"))
        told = (status.get("drain") or {}).get("open_at_start")
        if told is not None:  # so that a later call of the same drain can tell as well
            self.result["open_at_drain"] = told

    def _put(self, body: Json) -> tuple[int, Json]:
        while True:
            try:
                return self.client.put_drain(body)
            except ApiProblem as problem:
                if problem.status == 409:
                    raise foreign_drain(problem.problem) from problem
                failed = self.status is not None and self.status["state"] == "failed"
                if problem.status != 503 or failed or self.span.slice_left() <= 0:
                    raise
            self.span.pause(2 * SHORTEST_ROUND_S)

    def _await_drained(self) -> None:
        limit = self._limit()
        while not is_drained(self.status, self.options.owner):
            status = self.status or {}
            loss = loss_of(status, self.options.owner)
            if loss and self.absent_since is None:
                raise loss
            if self.span.elapsed() >= limit:
                if not self._at_deadline():
                    return
                limit = self.span.elapsed() + HANDOVER_EXTRA_S
            elif self.span.slice_left() <= 0:
                return
            else:
                self._round(limit)
        self._done()

    def _limit(self) -> float:
        drain = drain_of(self.status, self.options.owner) or {}
        fell_back = self.options.mode == "complete" and drain.get("mode") == "handover"
        self.result["fallback"] = fell_back
        return self.options.timeout + (HANDOVER_EXTRA_S if fell_back else 0.0)

    def _round(self, limit: float) -> None:
        """One look at the worker, as long as the worker makes it when nothing happens."""
        started = self.span.in_call()
        # A drained worker may still have a probe on the wire: its state says nothing more, so we look often.
        waits = self.status is not None and self.status["state"] == "draining"
        try:
            self._see(self.client.status(self.span.left(limit) if waits else 0, _ENDS))
        except (AccessDenied, Finding) as error:
            self._missing(error)
        rest = SHORTEST_ROUND_S - (self.span.in_call() - started)
        self.span.pause(min(rest, self.span.left(limit)))

    def _missing(self, error: Finding) -> None:
        self.result["finding"] = error.code
        if not isinstance(error, (NoSocket, DeadSocket, Hung, BrokenOff)):
            raise error
        now = self.clock.now()
        if self.absent_since is None:
            self.absent_since = now
        if now - self.absent_since >= ABSENCE_S or self.span.slice_left() <= 0:
            raise error

    def _at_deadline(self) -> bool:
        """Do what on_timeout says; True to go on waiting."""
        drain = drain_of(self.status, self.options.owner) or {}
        if self.options.on_timeout == "handover" and drain.get("mode") == "complete":
            body = {"owner": self.options.owner, "lease_s": self.options.lease, "mode": "handover"}
            self._see(self._put(body)[1])
            self.result.update(changed=True, fallback=True)
            return True
        if self.options.on_timeout == "force":
            self.result["forced"] = True
            self._done()
            return False
        raise self._timed_out()

    def _timed_out(self) -> WorkerError:
        remaining = remaining_of(self.status) or {}
        waited = self.span.elapsed()
        self._give_back()
        after = "it serves again" if self.result["gave_back"] else "it was not given back"
        return WorkerError(
            "drain_timeout",
            f"{remaining.get('open')} tasks were still open after {waited:.0f} s; {after}; raise timeout"
            " (solver_drain_timeout), or let on_timeout=handover (solver_on_drain_timeout) pass them to the next"
            " process",
            {
                "remaining": remaining,
                "elapsed_s": round(waited, 3),
                "timeout_s": self.options.timeout,
            },
        )

    def _give_back(self) -> None:
        """Take back what was asked for; the original failure counts, so this only records whether."""
        # What is to be held, whatever becomes of its owner, is held though its owner cannot drain it.
        if self.result["gave_back"] or self.options.on_expire == "hold" or self._unverified():
            return
        remaining = self.result["remaining"]
        try:
            status = self.client.delete_drain(self.options.owner)[1] or self.client.status()
        except WorkerError:
            return
        self._see(status)
        self.result.update(gave_back=True, remaining=remaining, changed=not self.result["began"])

    def _unverified(self) -> bool:
        """Another version than the one that was drained is held until it is verified: left to the lease."""
        drain = drain_of(self.status, self.options.owner) or {}
        running = ((self.status or {}).get("instance") or {}).get("version")
        return bool(drain.get("version")) and drain.get("version") != running

    # --- state: active ---

    def resume(self) -> None:
        """End our drain and see the worker serve. One whose process dies on the way is waited for, like in a drain."""
        while not self._resumed():
            self.span.pause(2 * SHORTEST_ROUND_S)

    def _resumed(self) -> bool:
        try:
            self._resume()
        except (AccessDenied, Finding) as error:
            self._missing(error)
            return False
        return True

    def _resume(self) -> None:
        status = self._first_look()
        foreign = foreign_drain_of(status, self.options.owner)
        if foreign and not self.options.steal:
            raise foreign_drain(foreign)
        self.result["changed"] = self.result["changed"] or status.get("drain") is not None
        if self.check_mode:
            self.result["diff"]["after"] = summary_of({"state": "running", "drain": None})
            self._done()
            return
        if self._settled() and self.status and self.status.get("drain") is not None:
            self._release(self.status)
        self._await_running()

    def _release(self, status: Json) -> None:
        ours = drain_of(status, self.options.owner) is not None
        try:
            code, after = self.client.delete_drain(self.options.owner, steal=not ours)
        except ApiProblem as problem:
            if problem.status == 409:
                raise foreign_drain(problem.problem) from problem
            raise
        self.result["changed"] = code == 200
        if after is not None:
            self._see(after)

    def _await_running(self) -> None:
        limit = min(self._slice(), self.options.timeout)
        while self.status is not None and self.status["state"] != "running":
            if self.status["state"] == "failed":
                raise loss_of(self.status, self.options.owner) or Foreign("unreachable")
            if self.span.elapsed() >= limit:
                raise self._still_held()
            started = self.span.in_call()
            self._see(self.client.status(min(5.0, self.span.left(limit)), ("running", "failed")))
            self.span.pause(SHORTEST_ROUND_S - (self.span.in_call() - started))
        self._done()

    def _still_held(self) -> WorkerError:
        status = self.status or {}
        return WorkerError(
            "not_running",
            f"it is {status.get('state')} and does not serve after {self.span.elapsed():.0f} s;"
            " verify it with solve_check, and look into its log",
            {"state": status.get("state"), "drain": status.get("drain")},
        )
