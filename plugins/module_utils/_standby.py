# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""A worker's standby: raise it, have it take over, drop it. Each may be repeated, also by another process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Callable, Dict

from ansible_collections.solver.fleet.plugins.module_utils._client import (
    ApiProblem,
    Finding,
    WorkerClient,
    WorkerError,
)
from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError, one_line, remedy
from ansible_collections.solver.fleet.plugins.module_utils._files import write_json
from ansible_collections.solver.fleet.plugins.module_utils._service_base import START_GRACE_S, Service
from ansible_collections.solver.fleet.plugins.module_utils._wait import Clock

Json = Dict[str, Any]
FEATURE = "standby"
_POLL_S = 0.1


@dataclass
class StandbyOptions:
    control_socket: str  # the worker's
    standby_socket: str  # in the same directory
    order: str  # the file that makes a standby of the process that the service starts
    owner: str
    reason: str = ""
    lease: float = 900.0
    timeout: float = 60.0  # for a process to answer, or to go
    control_timeout: float = 5.0


class Standby:
    """The standby slot of one worker; SERVICE is the second service, which runs it and then the worker."""

    def __init__(self, options: StandbyOptions, service: Service, clock: Clock | None = None) -> None:
        self.options = options
        self.service = service
        self.clock = clock or Clock()
        self.worker = WorkerClient(options.control_socket, options.control_timeout)
        self._started = 0.0
        self.client = WorkerClient(options.standby_socket, options.control_timeout)

    def status(self) -> Json | None:
        """The standby's status; None where there is none."""
        try:
            return self.client.status()
        except Finding:
            return None

    def up(self, steal: bool = False) -> Json:
        """Raise a standby, or renew ours; STEAL renews another's as ours."""
        if self.status() is not None:
            return self.renew(steal)
        self._write_order()
        self.service.start()
        self._started = self.clock.now()
        self._until(self._stands, "the standby did not answer")
        # Its lease began with its process, and what follows may take as long as its start.
        return self.renew()

    def renew(self, steal: bool = False) -> Json:
        return self.client.put_standby({"owner": self.options.owner, "lease_s": self.options.lease,
                                        "reason": self.options.reason, **({"steal": True} if steal else {})})

    def _write_order(self) -> None:
        options = self.options
        order = {"socket": options.standby_socket, "owner": options.owner, "reason": options.reason,
                 "lease_s": options.lease}
        try:
            write_json(options.order, order)
        except OSError as error:
            mended = remedy(error, f"make {os.path.dirname(options.order)} writable")
            raise StepError(
                "unwritable", f"writing the order {options.order}: {error.strerror}; {mended}", {"path": options.order}
            ) from error

    def _stands(self) -> Json | None:
        found = self.status()
        if found is not None and found["state"] == FEATURE:
            return found
        state = self.service.state().state
        gone = state in ("stopped", "restarting") and self.clock.now() >= self._started + START_GRACE_S
        if state == "failed" or gone:
            raise self._did_not("the standby ended")
        return None

    def take_over(self, within: float) -> Json:
        """The status of the worker that the standby has become."""
        boot_id = self.client.status()["instance"]["boot_id"]
        try:
            return self.client.take_over(self.options.owner, within)
        except (ApiProblem, Finding) as problem:
            # The answer may be lost, and the call repeated when all was done: who serves says so.
            serves = self.serving()
            if serves is None or serves["instance"]["boot_id"] != boot_id:
                raise problem
            return serves

    def serving(self) -> Json | None:
        """The worker's own status; None where none answers."""
        try:
            return self.worker.status()
        except Finding:
            return None

    def down(self, steal: bool = False) -> bool:
        """End the standby; false where there was none."""
        try:
            self.client.delete_standby(self.options.owner, steal)
        except Finding:
            if self.status() is not None:
                raise
            return False
        self._until(self._gone, "the standby did not end")
        return True

    def _gone(self) -> Json | None:
        return None if self.status() or self.service.state().state in ("running", "starting") else {}

    def _until(self, reached: Callable[[], Json | None], otherwise: str) -> Json:
        ends = self.clock.now() + self.options.timeout
        while True:
            found = reached()
            if found is not None:
                return found
            if self.clock.now() >= ends:
                raise self._did_not(f"{otherwise} within {self.options.timeout:g} s (restart_timeout, "
                                    "solver_healthy_deadline)")
            self.clock.sleep(_POLL_S)

    def _did_not(self, what: str) -> WorkerError:
        log = self.service.log_tail()
        return WorkerError("not_running", one_line(f"{what}: {(log or ['its log is empty'])[-1]}", 500), {"log": log})
