# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Services under systemd."""

from __future__ import annotations

from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._files import mask, run_command, tail
from ansible_collections.solver.fleet.plugins.module_utils._service_base import (
    Service,
    ServiceError,
    ServiceState,
    Settings,
    log_lines,
)

_PROPERTIES = "LoadState,ActiveState,SubState,MainPID,Result,ExecMainStatus,NRestarts"
_STATES = {
    "active": "running",
    "reloading": "running",
    "deactivating": "running",
    "activating": "starting",
    "inactive": "stopped",
    "failed": "failed",
}


# LoadCredential= came with this release of systemd.
_CREDENTIALS_SINCE = 247


def systemd_version() -> int:
    """The release of systemd; 0 where there is none."""
    try:
        status, out, _err = run_command(["systemctl", "--version"], 10)
    except OSError:
        return 0
    words = out.split()
    return int(words[1]) if status == 0 and len(words) > 1 and words[1].isdigit() else 0


def hands_credentials_over() -> bool:
    return systemd_version() >= _CREDENTIALS_SINCE


def read_show(text: str) -> ServiceState:
    """The answer of C(systemctl show) as a state."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    active, sub = found.get("ActiveState", ""), found.get("SubState", "")
    state = "restarting" if sub.startswith("auto-restart") else _STATES.get(active, "unknown")
    pid = found.get("MainPID", "")
    detail = f"{active} ({sub}), result {found.get('Result')}, exit status {found.get('ExecMainStatus')}"
    restarts = found.get("NRestarts", "")
    return ServiceState(
        state,
        int(pid) if pid.isdigit() and pid != "0" else None,
        detail,
        int(restarts) if restarts.isdigit() else None,
    )


class SystemdService(Service):
    """A unit, of the system or (C(scope) user) of the calling user."""

    def __init__(self, settings: Settings, **injected: Any) -> None:
        super().__init__(settings, **injected)
        self.unit = self.name if "." in self.name else f"{self.name}.service"
        self.scope = ["--user"] if settings.get("scope") == "user" else []

    def _run(self, program: str, *arguments: str) -> tuple[int | None, str]:
        try:
            status, out, err = run_command([program, *self.scope, *arguments], self.timeout)
        except OSError as error:
            raise ServiceError(
                "no_systemd",
                f"running {program}: {error.strerror}; set service.backend "
                "(solver_service_backend) to what this host has",
                {"option": "service.backend"},
            ) from error
        return status, mask(out if status == 0 else out + "\n" + err)

    def _do(self, verb: str, *flags: str) -> None:
        status, output = self._run("systemctl", verb, *flags, "--", self.unit)
        if status != 0:
            lines = tail(output)
            cause = (
                f"it did not end in {self.timeout:g} s" if status is None else (lines or ["no output"])[-1]
            )
            raise ServiceError(
                f"{verb}_failed",
                f"asking systemd to {verb} '{self.unit}': {cause}; correct service.name or service.timeout "
                "(solver_service)",
                {"status": status, "output": lines},
            )

    def start(self) -> None:
        # The unit belongs to the release, so it may have changed with the link; and one that was given up would refuse
        # because of its start limit.
        self._run("systemctl", "daemon-reload")
        self._run("systemctl", "reset-failed", "--", self.unit)
        self._do("start", "--no-block")

    def stop(self) -> None:
        self._do("stop")

    def state(self) -> ServiceState:
        status, output = self._run("systemctl", "show", f"--property={_PROPERTIES}", "--", self.unit)
        if status != 0:
            return ServiceState("unknown", None, (tail(output, 1) or [""])[0])
        return read_show(output)

    def log_tail(self, lines: int = 20) -> list[str]:
        if self.settings.get("log_file"):
            return super().log_tail(lines)
        begin = [] if self.since is None else [f"--since=@{self.since:.6f}"]
        wanted = ["-u", self.unit, *begin, "-n", str(lines), "-o", "cat", "--no-pager"]
        return log_lines(self._run("journalctl", *wanted)[1], lines)
