# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Services that are started, stopped and asked by commands of the operator's own."""

from __future__ import annotations

import re
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
_PID = re.compile(r"(?<![\w.-])pid[ =:]+(\d+)", re.IGNORECASE)


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

    def state(self) -> ServiceState:
        status, output = self._run("status")
        lines = tail(output, 1)
        pid = _PID.search(output)
        return ServiceState(
            _STATES.get(-1 if status is None else status, "unknown"),
            int(pid.group(1)) if pid else None,
            lines[0] if lines else "",
        )
