# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Services that are started, stopped and asked by commands of the operator's own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._files import mask, run_command, tail
from ansible_collections.solver.fleet.plugins.module_utils._service_base import (
    Service,
    ServiceError,
    ServiceState,
    Settings,
)

# Exit statuses of a status command, as the Linux Standard Base has them.
_STATES = {0: "running", 1: "failed", 2: "failed", 3: "stopped"}
_PID = re.compile(r"(?<![\w.-])pid[ =:]+([0-9]{1,9})(?![0-9])", re.IGNORECASE)


class CommandService(Service):
    """C(start), C(stop) and C(status) are lists of arguments; no shell reads them."""

    def __init__(self, settings: Settings, **injected: Any) -> None:
        super().__init__(settings, **injected)
        self.commands = {verb: self._command(verb) for verb in ("start", "stop", "status")}

    def _command(self, verb: str) -> list[str]:
        command = self.settings.get(verb)
        if not isinstance(command, list) or not command or not all(isinstance(a, str) for a in command):
            raise ServiceError(
                "bad_service",
                f"reading service: the backend 'command' needs service.{verb}, a list of arguments; set it",
                {"option": f"service.{verb}"},
            )
        return command

    def _run(self, verb: str) -> tuple[int | None, str]:
        try:
            status, out, err = run_command(self.commands[verb], self.timeout)
        except OSError as error:
            raise ServiceError(
                f"{verb}_failed",
                f"running service.{verb} of '{self.name}': {error.strerror}; correct service.{verb} (solver_service)",
                {"option": f"service.{verb}"},
                cause="host",
            ) from error
        return status, mask(out + "\n" + err)

    def _do(self, verb: str) -> None:
        status, output = self._run(verb)
        if status != 0:
            ended = f"it did not end in {self.timeout:g} s" if status is None else f"exit status {status}"
            raise ServiceError(
                f"{verb}_failed",
                f"running service.{verb} of '{self.name}': {ended}; "
                f"correct service.{verb} or service.timeout (solver_service)",
                {"status": status, "output": tail(output)},
            )

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop")

    def stop_by_force(self) -> None:
        """A process that is still there when the time of a stop is over is killed, as other managers do."""
        deadline = self.clock() + self.timeout
        problem: ServiceError | None = None
        try:
            self.stop()
        except ServiceError as error:
            problem = error
        # One that ended with success may only have asked the process to end.
        found = self._until_stopped(deadline if problem is None else self.clock())
        if found.state not in ("running", "starting"):
            return
        if found.pid is None or found.pid <= 1:
            raise problem or ServiceError(
                "stop_timeout",
                f"stopping '{self.name}': it still runs after {self.timeout:g} s, and service.status tells no pid that "
                "could be killed; let it print 'pid N', or end the process by hand",
                {"option": "service.status"},
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGKILL)
        self._until_stopped(self.clock() + self.timeout)

    def _until_stopped(self, deadline: float) -> ServiceState:
        while True:
            found = self.state()
            if found.state not in ("running", "starting") or self.clock() >= deadline:
                return found
            self.sleep(0.1)

    def cannot_start(self) -> str | None:
        program = self.commands["start"][0]
        if shutil.which(program):
            return None
        return f"there is no program '{program}' to run; correct service.start (solver_service)"

    def state(self) -> ServiceState:
        status, output = self._run("status")
        lines = tail(output, 1)
        pid = _PID.search(output)
        return ServiceState(
            _STATES.get(-1 if status is None else status, "unknown"),
            int(pid.group(1)) if pid else None,
            lines[0] if lines else "",
        )
