# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""A worker's service with a second place, the slot of its standby, in which the worker may also be found."""

from __future__ import annotations

import os
from typing import Any, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._files import remove_file
from ansible_collections.solver.fleet.plugins.module_utils._service_base import (
    Service,
    ServiceError,
    ServiceState,
    Settings,
)

LIVES = ("running", "starting", "restarting")


class SlottedService(Service):
    """The worker lives in C(home), and in C(slot) from a take-over until it is settled, or where that went wrong."""

    def __init__(self, settings: Settings, home: Service, slot: Service, **injected: Any) -> None:
        super().__init__(settings, **injected)
        self.home, self.slot = home, slot

    def holds(self, pid: int | None = None) -> bool:
        """Whether the worker lives in the slot: after a take-over, until it is settled.

        What lives there without an order is the worker, if it is the process PID that serves; where nobody says which
        that is, it is so whatever is at home.
        """
        found = self._in_slot()
        lives = found.state in LIVES and not os.path.exists(str(self.settings["standby"]["order"]))
        return lives and (pid is None or found.pid in (None, pid))

    def _place(self) -> Service:
        return self.slot if self.holds() else self.home

    def _forget_order(self) -> None:
        """Nobody waits for a standby at home any more: what is started there is the worker."""
        remove_file(str(self.settings["standby"]["home_order"]))

    def _in_slot(self) -> ServiceState:
        """One that was not provisioned yet holds nothing."""
        try:
            return self.slot.state()
        except ServiceError as error:
            return ServiceState("unknown", None, error.message)

    def start(self) -> None:
        self._forget_order()
        self.home.start()

    def stop(self) -> None:
        self.home.stop()
        if self._in_slot().state in LIVES:
            self.slot.stop()

    def stop_by_force(self) -> None:
        self.home.stop_by_force()
        if self._in_slot().state in LIVES:
            self.slot.stop_by_force()

    def state(self) -> ServiceState:
        return self._in_slot() if self.holds() else self.home.state()

    def cannot_start(self) -> str | None:
        return self.home.cannot_start()

    def restart(self, force: bool = False, keep: Sequence[int] = ()) -> None:
        if not self.holds():
            self._forget_order()
            self.home.restart(force, keep)
            return
        # It comes up at home.
        super().restart(force, keep)

    def anew(self) -> SlottedService:
        return type(self)(self.settings, self.home.anew(), self.slot.anew(), clock=self.clock, sleep=self.sleep)

    def log_tail(self, lines: int = 20) -> list[str]:
        place = self._place()
        place.since = place.since or self.since
        return place.log_tail(lines)
