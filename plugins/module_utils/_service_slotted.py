# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""A worker's service with a second place, the slot of its standby, in which the worker may also be found."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._detached import detached
from ansible_collections.solver.fleet.plugins.module_utils._service_base import (
    Service,
    ServiceError,
    ServiceState,
    Settings,
)

_LIVES = ("running", "starting", "restarting")


class SlottedService(Service):
    """The worker lives in C(home), and in C(slot) from a take-over until it is settled, or where that went wrong."""

    def __init__(self, settings: Settings, home: Service, slot: Service, **injected: Any) -> None:
        super().__init__(settings, **injected)
        self.home, self.slot = home, slot

    def holds_worker(self) -> bool:
        """Whether the worker lives in the slot: after a take-over, until it is settled."""
        return self._place() is self.slot

    def _place(self) -> Service:
        """Where the worker is. What lives in the slot without an order is the worker, whatever is at home."""
        return self.slot if self._in_slot().state in _LIVES and not self._ordered("order") else self.home

    def _ordered(self, which: str) -> bool:
        return os.path.exists(str(self.settings["standby"][which]))

    def _forget_order(self) -> None:
        """Nobody waits for a standby at home any more: what is started there is the worker."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(str(self.settings["standby"]["home_order"]))

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
        if self._in_slot().state in _LIVES:
            self.slot.stop()

    def stop_by_force(self) -> None:
        self.home.stop_by_force()
        if self._in_slot().state in _LIVES:
            self.slot.stop_by_force()

    def state(self) -> ServiceState:
        return self._in_slot() if self._place() is self.slot else self.home.state()

    def cannot_start(self) -> str | None:
        return self.home.cannot_start()

    def restart(self, force: bool = False, keep: Sequence[int] = ()) -> None:
        if self._place() is self.home:
            self._forget_order()
            self.home.restart(force, keep)
            return
        # It comes up at home; what was stopped is started, also if this process is killed in between.
        own = type(self)(self.settings, type(self.home)(self.home.settings), type(self.slot)(self.slot.settings),
                         clock=self.clock, sleep=self.sleep)
        detached(lambda: own.stop_and_start(force), own.start_once_stopped, 5 * self.timeout + 60, keep)

    def log_tail(self, lines: int = 20) -> list[str]:
        place = self._place()
        place.since = place.since or self.since
        return place.log_tail(lines)
