# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Switching: point a worker to another release and restart it, only while that loses nothing."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable, NamedTuple, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._client import ApiProblem, WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError, WorkerError, remedy
from ansible_collections.solver.fleet.plugins.module_utils._files import remove_file, switch_link
from ansible_collections.solver.fleet.plugins.module_utils._release import Base, Links, read_links, release_name
from ansible_collections.solver.fleet.plugins.module_utils._result import LEASE_S
from ansible_collections.solver.fleet.plugins.module_utils._service_base import START_GRACE_S, Service, ServiceState

# Without an answer on the socket, a service that runs for so long counts as restarted.
SETTLE_S = 3.0
POLL_S = 0.1
# States in which the worker takes no drain, but will soon be in another.
_PASSING = ("starting", "stopping")
_NOTHING_TO_LOSE = ("stopped", "dead")
# Failures of a restart before the service manager was asked for one.
_NOT_ASKED = ("reload_failed", "no_systemd")


class Move(NamedTuple):
    """What shall become of a worker's links and process."""

    worker_name: str
    worker_dir: str
    base_dir: str
    release: str | None = None
    previous: bool = False
    restart: bool = True
    owner: str | None = None
    lease_s: float = LEASE_S
    force_restart: bool = False
    restart_timeout: float = 30.0
    on_expire: str = "verify"


class Seen(NamedTuple):
    """What a look at the worker found: C(answers) with its status, or a finding without one."""

    finding: str
    status: Json | None = None
    message: str = ""

    @property
    def state(self) -> str:
        return str(self.status["state"]) if self.status else self.finding

    def instance(self, key: str) -> Any:
        return self.status["instance"].get(key) if self.status else None


def look(client: WorkerClient, wait: float = 0, until: tuple[str, ...] = ()) -> Seen:
    try:
        return Seen("answers", client.status(wait, until))
    except ApiProblem as problem:
        return Seen("foreign", None, problem.message)
    except WorkerError as error:
        return Seen(error.code, None, error.message)


# --- decisions: pure ---


def release_to_switch_to(move: Move, links: Links, base: Base) -> str:
    """The directory of the release that the move names."""
    if not move.previous and not move.release:
        raise StepError(
            "no_release",
            f"switching worker {move.worker_name}: no release is named; set release, or previous to true",
            {"option": "release"},
        )
    if move.release:
        return base.release(move.release)
    if links.previous is None or links.previous == links.current:
        raise StepError(
            "no_previous",
            f"reverting worker {move.worker_name}: it has no previous release; name one in release",
            {"current": release_name(links.current), "option": "release"},
        )
    return links.previous


def runs_release(seen: Seen, name: str) -> bool:
    """Whether the process that answers is that release, and in order."""
    return seen.finding == "answers" and seen.state != "failed" and seen.instance("release") == name


def needs_drain(move: Move, seen: Seen) -> bool:
    """Whether the worker must be held by our drain before it may be touched; raises if it may not be at all."""
    if seen.finding in _NOTHING_TO_LOSE or seen.state == "failed":
        return False
    if seen.finding == "answers" and seen.state not in _PASSING:
        return True
    if move.force_restart and (seen.finding == "hung" or seen.state in _PASSING):
        return False
    mends = "set force_restart to restart it nevertheless (solver_on_drain_timeout: force does that)"
    if seen.finding not in ("answers", "hung"):
        mends = "correct control_socket (solver_control_socket), or set solver_become: true"
    raise StepError(
        seen.state,
        f"switching worker {move.worker_name}: it is {seen.state}"
        f"{': ' + seen.message if seen.message else ''}; {mends}",
        {"finding": seen.finding, "state": seen.state},
        cause="drain",
    )


def check_drain(move: Move, drain: Json | None) -> None:
    """Only the one who holds the worker may touch it."""
    if drain is None:
        raise StepError(
            "lease_lost",
            f"switching worker {move.worker_name}: it is not drained, or the lease of the drain expired; "
            "drain it first, with a longer lease (solver_drain_lease)",
            {"owner": move.owner},
        )
    if drain.get("owner") != move.owner:
        raise StepError(
            "foreign_drain",
            f"switching worker {move.worker_name}: '{drain.get('owner')}' holds its drain, not '{move.owner}'; "
            "wait for that owner, or take the drain over with worker_drain and steal",
            {key: drain.get(key) for key in ("owner", "reason", "lease_expires_at")},
        )


def check_safe(move: Move, status: Json) -> None:
    if status["safe_to_stop"] or move.force_restart:
        return
    raise StepError(
        "not_safe_to_stop",
        f"switching worker {move.worker_name}: it is {status['state']} and not safe to stop; "
        "wait for its drain, or set force_restart to accept the loss (solver_on_drain_timeout: force does that)",
        {"state": status["state"], "tasks": status.get("tasks")},
    )


def renewal(move: Move, status: Json) -> Json:
    """The drain as it must be while the release changes: if its lease ends, the worker verifies itself first."""
    features = (status.get("api") or {}).get("features") or []
    # A worker that cannot verify itself is held rather than let serve unverified.
    on_expire = move.on_expire if "verify" in features else "hold"
    return {"owner": move.owner, "on_expire": on_expire, "lease_s": move.lease_s}


def restart_outcome(
    before: Seen, pid_before: int | None, now: Seen, service: ServiceState, elapsed: float
) -> str | None:
    """What became of a restart: C(done), C(failed), or None while that is open."""
    if now.finding == "answers" and now.instance("boot_id") != before.instance("boot_id"):
        return "done"
    if service.state in ("failed", "restarting") or (service.state == "stopped" and elapsed >= START_GRACE_S):
        return "failed"
    if service.pid is None:
        # Who hangs may be the old one, on its way out.
        is_new = now.finding in _NOTHING_TO_LOSE
    else:
        is_new = service.pid != pid_before and (service.state == "running" or now.finding != "answers")
    # How long it may take to be ready is for the check to say, which goes by solver_healthy_deadline.
    return "done" if is_new and service.state in ("running", "starting") and elapsed >= SETTLE_S else None


# --- doing it ---


class Switch:
    """One switch of one worker. The result grows as it goes, and a failure returns it too."""

    def __init__(
        self,
        move: Move,
        client: WorkerClient,
        service: Service | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        *,
        keep: Sequence[int] = (),
    ) -> None:
        """KEEP are the descriptors of the locks under which this is done."""
        self.move = move
        self.client = client
        self.service = service
        self.clock = clock
        self.sleep = sleep
        self.keep = keep
        self.base = Base(move.base_dir)
        self.result: Json = {"changed": False, "switched": False, "restarted": False}

    def run(self, check_mode: bool) -> Json:
        if self.move.restart and self.service is None:
            raise StepError(
                "no_service",
                f"restarting worker {self.move.worker_name}: no service is named; set service, or restart to false",
                {"option": "service"},
            )
        links, name, goal, seen = self._look()
        if not check_mode:
            self._check_release(name)
        must_switch = links.current != goal
        must_restart = self.move.restart and not runs_release(seen, name)
        if check_mode or not (must_switch or must_restart):
            self.result["changed"] = must_switch or must_restart
            return self.result
        if must_restart and self.service is not None:
            self._check_start(self.service)
        seen = self._hold(seen)
        if must_switch:
            self._switch(links, goal)
        # A process of the old release under the same id cannot be: equal ids are equal releases.
        if must_restart and self.service is not None:
            self._restart(self.service, seen)
        return self.result

    def _look(self) -> tuple[Links, str, str, Seen]:
        """Where the worker is, and where it shall go."""
        links = read_links(self.move.worker_dir)
        goal = release_to_switch_to(self.move, links, self.base)
        name = os.path.basename(goal)
        seen = look(self.client)
        self._describe(links, name, seen)
        return links, name, goal, seen

    def _describe(self, links: Links, name: str, seen: Seen) -> None:
        journal = (seen.status or {}).get("journal") or {}
        self.result.update(
            {
                "from": release_name(links.current),
                "to": name,
                "release": self.base.metadata(name),
                "current": release_name(links.current),
                "previous": release_name(links.previous),
                "at_target": release_name(links.current) == name,
                "running_release": seen.instance("release"),
                "state_before": seen.state,
                "boot_id_before": seen.instance("boot_id"),
                "pid_before": seen.instance("pid"),
                "totals_before": (seen.status or {}).get("totals"),
                "journal_id": journal.get("id"),
            }
        )

    def _check_release(self, name: str) -> None:
        if self.base.is_runnable(name):
            return
        raise StepError(
            "no_release",
            f"switching worker {self.move.worker_name} to '{name}': there is no such complete release at "
            f"'{self.base.releases}'; stage it first",
            {"release": name, "available": [n for n in self.base.release_names() if self.base.is_runnable(n)]},
        )

    def _check_start(self, service: Service) -> None:
        """What cannot be started again is not stopped."""
        why = service.cannot_start()
        if why:
            raise StepError(
                "cannot_start",
                f"restarting worker {self.move.worker_name}: its service could not be started again: {why}",
                {"service": service.name},
            )

    def _hold(self, seen: Seen) -> Seen:
        """Nothing is touched before the worker is known to be held by us, and safe to stop."""
        if seen.state in _PASSING and not self.move.force_restart:
            others = ("recovering", "running", "draining", "drained", "failed")
            seen = look(self.client, min(10.0, self.move.restart_timeout), others)
        if not needs_drain(self.move, seen):
            return seen
        status = seen.status or {}
        check_drain(self.move, status.get("drain"))
        code, status = self._renew(status)
        if code != 200:
            # Our drain ended between the look and the renewal: what we began here, we give back.
            with contextlib.suppress(WorkerError):
                self.client.delete_drain(str(self.move.owner))
            check_drain(self.move, None)
        check_safe(self.move, status)
        self.result["totals_before"] = status.get("totals")
        return Seen("answers", status)

    def _renew(self, status: Json) -> tuple[int, Json]:
        try:
            return self.client.put_drain(renewal(self.move, status))
        except ApiProblem as problem:
            if problem.status == 409:
                check_drain(self.move, problem.problem)
            raise

    def _switch(self, links: Links, goal: str) -> None:
        current = os.path.join(self.move.worker_dir, "current")
        previous = os.path.join(self.move.worker_dir, "previous")
        steps = [(current, goal)]
        if links.current is not None:
            # Killed between the two steps, the worker must still know the release that it goes to or comes from.
            steps.insert(1 if goal == links.previous else 0, (previous, links.current))
        try:
            for link, target in steps:
                switch_link(link, target)
                # Whatever fails from here on, the next start runs something else.
                self.result.update(changed=True, switched=self.result["switched"] or link == current)
            # Nothing waits any more: it was switched to, or something else was chosen over it.
            remove_file(os.path.join(self.move.worker_dir, "staged"))
        except OSError as error:
            raise StepError(
                "unwritable",
                f"switching worker {self.move.worker_name}: {error.strerror} at '{error.filename}'; " + remedy(
                    error, "set worker_dir (solver_worker_dir) to an existing directory that this user may write"),
                {"path": error.filename, "option": "worker_dir"},
            ) from error
        now = read_links(self.move.worker_dir)
        self.result.update(
            changed=True,
            switched=True,
            at_target=True,
            current=release_name(now.current),
            previous=release_name(now.previous),
        )

    def _restart(self, service: Service, before: Seen) -> None:
        pid_before = before.instance("pid") or service.state().pid
        self.result["changed"] = True
        self.result["restarted"] = True
        try:
            service.restart(self.move.force_restart, self.keep)
            self._await_restart(service, before, pid_before)
        except StepError as error:
            # One that fails after that may stop it yet, and start what the link names.
            if error.code in _NOT_ASKED:
                self.result["restarted"] = False
            error.details.setdefault("log", self._log(service))
            raise

    def _await_restart(self, service: Service, before: Seen, pid_before: int | None) -> None:
        began = self.clock()
        while True:
            now, state = look(self.client), service.state()
            elapsed = self.clock() - began
            self.result.update(
                worker_state=now.state,
                service=state.record(),
                boot_id=now.instance("boot_id"),
                pid=now.instance("pid") or state.pid,
            )
            outcome = restart_outcome(before, pid_before, now, state, elapsed)
            if outcome == "done":
                return
            if outcome == "failed":
                raise StepError(
                    "service_failed",
                    f"restarting worker {self.move.worker_name}: its service is {state.state} ({state.detail}); "
                    "the details show the end of its log",
                    {"service": state.record()},
                )
            if elapsed >= self.move.restart_timeout:
                raise StepError(
                    "restart_timeout",
                    f"restarting worker {self.move.worker_name}: after {self.move.restart_timeout:g} s its service is "
                    f"{state.state} and the worker {now.state}: there is no other process; see its log, and that "
                    "its service restarts it",
                    {"service": state.record(), "finding": now.finding, "option": "restart_timeout"},
                )
            self.sleep(POLL_S)

    @staticmethod
    def _log(service: Service) -> list[str]:
        try:
            return service.log_tail()
        except StepError:
            return []
