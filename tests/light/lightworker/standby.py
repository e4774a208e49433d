# SPDX-License-Identifier: GPL-3.0-or-later
"""The second process of a worker: a standby by its order, with a socket of its own, until it takes over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from solver_worker import standby as standbys
from solver_worker.drain import Moment
from solver_worker.errors import NotTakenOverError

from .worker import ENDED, RUNS, STOPPED, Worker, service_file

STANDBY = "standby"


LINKS = {"main": "current", "standby": "standby"}


class Standby(Worker):
    """Starts the release behind the link of its PLACE; an order there is the file that makes a standby of it."""

    def __init__(self, worker: Worker, place: str, ended: Callable[[], None]) -> None:
        self.order = worker.path.with_name(f"{worker.path.stem}-{LINKS[place]}.order")
        self.place = place
        self.serves = worker
        self._ended = ended
        self.wanted: standbys.Standby
        super().__init__(worker.host, worker.name, str(worker.path), str(worker.worker_dir), worker.own_drain_s, 0)
        self.service = service_file(worker.path, place)

    def ordered(self) -> bool:
        try:
            order = json.loads(self.order.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        self.path = Path(order["socket"])
        self.wanted = standbys.Standby(order["owner"], order.get("reason", ""), order.get("lease_s", 900.0),
                                       self.host.clock.boot())
        return True

    def _take_slot(self, _slot: str) -> None:
        """It runs in one alone."""

    def _log_state(self) -> None:
        if self.state != self._logged:
            self._logged = self.state
            self.host.log(self.name, standby=self.state, version=self.version, boot_id=self.boot_id)

    def _come_up(self) -> None:
        self.phase = STANDBY
        self.refresh()

    def standby(self) -> dict[str, Any]:
        return self.timed.describe(Moment(self.host.clock.boot(), self.host.clock.now()))

    @property
    def timed(self) -> standbys.Standby:
        """With its lease as fast as a test wants it."""
        return replace(self.wanted, lease_s=self.wanted.lease_s / self.behaviour.lease_speed)

    def renew(self, wish: Mapping[str, Any]) -> bool:
        renewed = standbys.renew(self.wanted, wish, self.host.clock.boot())
        if renewed is not None:
            self.wanted = renewed
            self.refresh(changed=True)
        return renewed is not None

    async def _solve(self, request_id: str, expect: str, timeout_s: float) -> dict[str, Any]:
        answer = await super()._solve(request_id, expect, timeout_s)
        self.wanted = replace(self.wanted, verified=answer["outcome"] == "succeeded")
        self.refresh(changed=True)
        return answer

    async def take_over(self, owner: str) -> None:
        worker = self.serves
        try:
            self._may_take_over(worker, owner)
        except NotTakenOverError as exc:
            self.wanted = replace(self.wanted, last_error=exc)
            self.refresh(changed=True)
            raise
        self.order.unlink(missing_ok=True)
        await worker.follow(self)
        self.phase = None
        self._server.close()
        self._stop_timer()
        self.path.unlink(missing_ok=True)
        self._tell_service(RUNS)
        self._ended()

    def _may_take_over(self, worker: Worker, owner: str) -> None:
        if worker.phase not in ("serving", None):
            raise NotTakenOverError("lock_held", f"the process that has the journal is {worker.phase}")
        drain = worker.drain
        if worker.phase and drain is not None and not drain.expired and drain.owner != owner:
            raise NotTakenOverError("drained_by_another", f"{drain.owner} drains this worker")
        if worker.phase and not self.wanted.verified and self.version != worker.version:
            raise NotTakenOverError("unverified", f"version {self.version} has not solved a probe here; probe it first")
        if self.behaviour.failed:
            raise NotTakenOverError(self.behaviour.failed, "a test wants it to fail")

    def tick(self) -> None:
        if self.phase == STANDBY and self.timed.expired(self.host.clock.boot()):
            self.end()
        else:
            super().tick()

    def _drain_instants(self, _boot: float) -> list[float]:
        return [self.timed.lease_ends if self.phase == STANDBY else float("inf")]

    def end(self) -> None:
        self.order.unlink(missing_ok=True)
        self._end_process()
        self.path.unlink(missing_ok=True)
        self._gone("stopped", STOPPED)
        self._ended()


class Slot:
    """One of the two places of a worker, as its service manager has it."""

    def __init__(self, worker: Worker, place: str) -> None:
        self.worker = worker
        self.place = place
        self.standby: Standby | None = None

    async def start(self) -> None:
        if self.standby is not None or (self.worker.slot == self.place and self.worker.phase is not None):
            return
        standby = Standby(self.worker, self.place, self._ended)
        if not standby.ordered():
            if self.worker.phase is None:
                await self.worker.start(self.place, LINKS[self.place])
            else:
                standby._tell_service(ENDED)  # the lock is held
            return
        self.standby = standby
        await standby.start(link=LINKS[self.place])
        if standby.phase is None:
            self.standby = None

    async def stop(self) -> None:
        if self.standby is not None:
            self.standby.end()
        elif self.worker.slot == self.place:
            await self.worker.stop()

    def _ended(self) -> None:
        self.standby = None
