# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Switching by a standby: the new release is raised and verified beside the worker, and takes over from it."""

from __future__ import annotations

import os
import re
from typing import Any, Callable, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._client import ApiProblem, WorkerClient
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError, WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._files import remove_file, switch_link
from ansible_collections.solver.fleet.plugins.module_utils._release import Base, Links, release_name
from ansible_collections.solver.fleet.plugins.module_utils._release_switch import Move, Switch, runs_release
from ansible_collections.solver.fleet.plugins.module_utils._service import Service, open_service
from ansible_collections.solver.fleet.plugins.module_utils._service_base import Settings
from ansible_collections.solver.fleet.plugins.module_utils._service_slotted import LIVES, SlottedService
from ansible_collections.solver.fleet.plugins.module_utils._standby import FEATURE, Standby, StandbyOptions
from ansible_collections.solver.fleet.plugins.module_utils._wait import Clock

# One that brings the worker home takes seconds once it answers; whoever dies over it leaves no process for longer.
SETTLE_LEASE_S = 120.0
LINK = "standby"
# The process that handed over stays for those who are still connected to it.
_LINGER_S = 15.0
_POLL_S = 0.1
# Of the reasons for which a take-over is refused: what they are blamed on. Any other is the new release's.
_REFUSED = {
    "busy": "not_safe_to_stop", "not_now": "not_safe_to_stop", "drained_by_another": "foreign_drain",
    "lock_held": "feature_missing", "standby_of_another": "held", "gone": "not_running",
}


class Slot:
    """Both places of one worker: C(beside) has the standby, C(home) is the worker's own, where it is brought back."""

    def __init__(self, settings: Settings, given: Json, clock: Clock | None = None) -> None:
        service = open_service(settings)
        if not isinstance(service, SlottedService):
            raise StepError("no_service", f"worker {given['worker_name']}: no slot for a standby is named; set "
                            "service.standby (solver_standby: true), or switch to in_place",
                            {"option": "service.standby"})
        self.service, own = service, settings["standby"]
        self.worker_dir = os.path.abspath(given["worker_dir"])
        self.clock = clock or Clock()

        def place(order: str, service: Service, lease: float) -> Standby:
            return Standby(StandbyOptions(
                control_socket=given["control_socket"], standby_socket=own["socket"], order=order,
                owner=given["owner"], reason=given.get("reason") or "", lease=lease,
                timeout=given["restart_timeout"], control_timeout=given["control_timeout"]), service, self.clock)

        self.beside = place(own["order"], self.service.slot, given["lease"])
        self.home = place(own["home_order"], self.service.home, SETTLE_LEASE_S + given["restart_timeout"])

    def holds_worker(self) -> bool:
        """Whether the worker itself runs in the slot: after a take-over, until it is settled."""
        worker = self.beside.serving()
        return worker is not None and self.service.holds(worker["instance"]["pid"])

    def raise_standby(self, release: str, base: Base) -> Json:
        """Have RELEASE stand by; the link tells the slot's service what to run."""
        try:
            self.settle()
        except (StepError, WorkerError) as error:
            raise StepError("cannot_start", f"bringing the worker home from its slot first: {error.message}",
                            {"log": error.details.get("log")}) from error
        folder = base.release(release)
        found = self.beside.status()
        if found is None or found["instance"]["release"] != release:
            if found is not None:
                self.beside.down(steal=True)
            # What lives in the slot runs what the link names, whenever it is started again.
            self._wait_until_left(self.service.holds)
            switch_link(os.path.join(self.worker_dir, LINK), folder)
            why = self.beside.service.cannot_start()
            if why:
                raise StepError("cannot_start", f"raising the standby: {why}; provision.yml puts its slot in place, "
                                "with solver_standby: true", {"service": self.beside.service.name})
            # A process that was killed as a standby leaves its service waiting to start it again.
            self.beside.service.stop()
        return self.beside.up(steal=True)

    def drop(self) -> bool:
        """End the standby, whoever raised it; false where there is none. The worker is not touched."""
        if self.holds_worker():
            return False
        self._wait_until_left(self.service.holds)
        dropped = self.beside.down(steal=True)
        # One that crashed answers nobody, and its service may be about to start it again. A worker has no order.
        if os.path.exists(self.beside.options.order) and not self.beside.service.absent():
            self.beside.service.stop()
        remove_file(self.beside.options.order)
        remove_file(os.path.join(self.worker_dir, LINK))
        return dropped

    def settle(self, within: float = 30.0) -> bool:
        """Bring a worker that serves from the slot home, by a standby of its own version there; false: it is."""
        if not self.holds_worker():
            return False
        self._wait_until_left(lambda: self.home.service.state().state in LIVES and self.home.status() is None)
        try:
            self.home.up(steal=True)
            self.home.take_over(within)
        finally:
            # Once it has taken over it has removed this itself; what comes up later at home is the worker.
            remove_file(self.home.options.order)
        # As long as its process is there, the slot looks as if it held the worker.
        self._wait_until_left(self.service.holds)
        return True

    def _wait_until_left(self, stays: Callable[[], bool]) -> None:
        """A process that has handed over stays for those who are still connected to it.

        Where the worker does not answer it may be the worker itself, and is not touched.
        """
        ends = self.clock.now() + _LINGER_S
        while stays():
            if self.beside.serving() is None or self.clock.now() >= ends:
                raise StepError("hung", "what runs where no worker is expected does not end, and may be the worker; "
                                "look at its log", {"service": self.service.name}, cause="host")
            self.clock.sleep(_POLL_S)


class TakeOver(Switch):
    """The same as a switch by restart, without a moment in which nobody serves."""

    def __init__(
        self, move: Move, client: WorkerClient, slot: Slot, within: float, *, keep: Sequence[int] = (),
    ) -> None:
        super().__init__(move, client, slot.service, keep=keep)
        self.slot, self.within = slot, within

    def _check_before(self, name: str) -> None:
        found = self.slot.beside.status()
        if found is None or found["state"] != FEATURE or found["instance"]["release"] != name:
            what = "none answers" if found is None else f"what is there is {found['instance']['release']}"
            raise StepError(
                "not_running",
                f"switching worker {self.move.worker_name} to '{name}': no standby of that release stands by ({what}); "
                "raise it first, with state standby", {"release": name})

    def _replace(self, links: Links, goal: str, name: str) -> None:
        """The links first: should both processes die, it is the new release that comes up, held."""
        self._check_before(name)
        self.slot.beside.renew()
        if links.current != goal:
            self._switch(links, goal)
        self.result["changed"] = True
        try:
            now = self.slot.beside.take_over(self.within)
        except ApiProblem as problem:
            links = self._as_it_runs(links, name)
            restore(self.move.worker_dir, links)
            self.result.update(switched=False, at_target=False, current=release_name(links.current),
                               previous=release_name(links.previous))
            raise StepError(
                _REFUSED.get(problem.code, "worker_failed"),
                f"switching worker {self.move.worker_name}: its standby did not take over: {problem.message}",
                {"refused": problem.code, "log": self._log(self.slot.beside.service)}) from problem
        self.result.update(restarted=True, worker_state=now["state"], boot_id=now["instance"]["boot_id"],
                           pid=now["instance"]["pid"], service=self.slot.beside.service.state().record())

    def _as_it_runs(self, links: Links, name: str) -> Links:
        """A run that died may have moved the link and no more: what serves is what the next start shall run."""
        runs = self.result["running_release"]
        moved = release_name(links.current) == name != runs and runs is not None and self.base.is_runnable(runs)
        return links._replace(current=self.base.release(runs)) if moved else links

    def run(self, check_mode: bool) -> Json:
        links, name, goal, seen = self._look()
        must = links.current != goal or not runs_release(seen, name)
        if check_mode or not must:
            self.result["changed"] = must
            return self.result
        self._check_release(name)
        self._check_start(self.slot.service)
        self._replace(links, goal, name)
        return self.result


def restore(worker_dir: str, links: Links) -> None:
    """Put a worker's links back as they were; the one of the standby is not among them."""
    for link, target in zip(("current", "previous", "staged"), links):
        path = os.path.join(worker_dir, link)
        if target is not None:
            switch_link(path, target)
        else:
            remove_file(path)


def slot_problem(settings: Settings) -> str | None:
    """Why a standby could not be raised beside the worker; None if nothing speaks against it."""
    service = open_service(settings)
    why = service.slot.absent() if isinstance(service, SlottedService) else "the inventory gives it none"
    return f"it has no slot for a standby ({why}); set solver_standby: true and run provision.yml" if why else None


def memory_for(pid: Any) -> dict[str, int] | None:
    """How many bytes a second process like PID may need, and how many its host has to spare; None if it cannot tell."""
    needs = _bytes(f"/proc/{pid}/status", "VmRSS") if isinstance(pid, int) else None
    spare = _bytes("/proc/meminfo", "MemAvailable")
    return {"needs": needs, "spare": spare} if needs and spare is not None else None


def _bytes(path: str, name: str) -> int | None:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            found = re.search(rf"^{name}:\s+([0-9]+) kB", stream.read(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found.group(1)) if found else None
