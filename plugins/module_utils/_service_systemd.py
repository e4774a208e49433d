# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Services under systemd."""

from __future__ import annotations

import time
from typing import Any, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._files import mask, run_command, tail
from ansible_collections.solver.fleet.plugins.module_utils._service_base import (
    Service,
    ServiceError,
    ServiceState,
    Settings,
    log_lines,
)

_PROPERTIES = "LoadState,ActiveState,SubState,MainPID,Result,ExecMainStatus,NRestarts,Job"
_STATES = {
    "active": "running",
    "reloading": "running",
    "deactivating": "running",
    "activating": "starting",
    "inactive": "stopped",
    "failed": "failed",
}


# What `is-enabled` says of units that are there and may be started, whether or not they start with the machine.
_STARTABLE = frozenset({
    "enabled", "enabled-runtime", "linked", "linked-runtime", "alias", "static", "indirect", "disabled", "generated",
    "transient"})
_POLL_S = 0.1

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


def since_its_start(text: str) -> str:
    """What was said from systemd's own word that it starts the unit; before that speaks the process that it stopped."""
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("Starting ")), 0)
    return "\n".join(lines[first:])


def read_show(text: str) -> ServiceState:
    """The answer of C(systemctl show) as a state."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    active, sub = found.get("ActiveState", ""), found.get("SubState", "")
    state = "restarting" if sub.startswith("auto-restart") else _STATES.get(active, "unknown")
    if state in ("stopped", "failed", "restarting") and found.get("Job", "0") not in ("", "0"):
        state = "starting"  # between the two halves of a restart, or before its first
    pid = found.get("MainPID", "")
    detail = f"{active} ({sub}), result {found.get('Result')}, exit status {found.get('ExecMainStatus')}"
    restarts = found.get("NRestarts", "")
    return ServiceState(
        state,
        int(pid) if pid.isdigit() and pid != "0" else None,
        detail,
        int(restarts) if restarts.isdigit() else None,
    )


def blanked_by(drop_ins: Sequence[tuple[str, str]]) -> str | None:
    """Which of the drop-ins, in the order in which systemd reads them, leaves a unit without credentials."""
    blanked = None
    for path, text in drop_ins:
        for line in text.splitlines():
            name, _equals, value = line.partition("=")
            if name.strip() == "LoadCredential":
                blanked = None if value.strip() else path
    return blanked


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(65536)
    except OSError:
        return ""


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

    def cannot_start(self) -> str | None:
        # A unit that runs may be gone from the disk: `systemctl disable` removes the link to one of ours, too.
        status, output = self._run("systemctl", "is-enabled", "--", self.unit)
        lines = tail(output)
        if lines and lines[0].strip() in _STARTABLE:
            return self._without_credentials()
        said = f"it did not answer in {self.timeout:g} s" if status is None else (lines or ["no output"])[-1]
        return (f"systemd says of '{self.unit}': {said}; unmask it where it is masked, and run provision.yml, which "
                "puts its unit in place")

    def absent(self) -> str | None:
        """A unit whose drop-in leads to what no link names yet is there all the same."""
        status, output = self._run("systemctl", "show", "--property=FragmentPath", "--value", "--", self.unit)
        if status == 0 and output.strip():
            return None
        return f"systemd has no unit '{self.unit}'"

    def _without_credentials(self) -> str | None:
        """A container's drop-in may take away what the unit hands over, which the worker then misses."""
        paths = self._run("systemctl", "show", "--property=DropInPaths", "--value", "--", self.unit)[1].split()
        blanked = blanked_by([(path, _read(path)) for path in paths])
        return blanked and (
            f"'{blanked}' takes the credentials of '{self.unit}' away, by an empty LoadCredential=; take that line "
            "out, or give the credentials again in a drop-in that comes after it")

    def _ready(self) -> None:
        """The unit belongs to the release, so it may have changed with the link; and one that was given up would refuse
        because of its start limit."""
        status, output = self._run("systemctl", "daemon-reload")
        if status != 0:
            raise ServiceError(
                "reload_failed",
                f"asking systemd to read its units again: {(tail(output) or ['no answer'])[-1]}; nothing was stopped; "
                "see that there is room in /run, and that systemctl daemon-reload works",
                {"status": status, "output": tail(output)},
            )
        self._run("systemctl", "reset-failed", "--", self.unit)

    def start(self) -> None:
        self._ready()
        self._do("start", "--no-block")

    def restart(self, force: bool = False, keep: Sequence[int] = ()) -> None:  # noqa: ARG002 - systemd always kills
        """One job of the manager, which it brings to its end whoever asked for it."""
        self._ready()
        before = self.state().pid
        self.since = time.time()
        self._do("restart", "--no-block")
        deadline = self.clock() + self.timeout
        while before is not None and self.state().pid == before:
            if self.clock() >= deadline:
                raise ServiceError(
                    "stop_timeout",
                    f"stopping '{self.unit}': its process {before} is still there after {self.timeout:g} s; raise "
                    "service.timeout (solver_service), or lower TimeoutStopSec of the unit",
                    {"pid": before, "option": "service.timeout"},
                )
            self.sleep(_POLL_S)

    def stop(self) -> None:
        """What was stopped on purpose is no unit that failed, whatever became of it before."""
        self._do("stop")
        self._run("systemctl", "reset-failed", "--", self.unit)

    def state(self) -> ServiceState:
        status, output = self._run("systemctl", "show", f"--property={_PROPERTIES}", "--", self.unit)
        if status != 0:
            return ServiceState("unknown", None, (tail(output, 1) or [""])[0])
        return read_show(output)

    def log_tail(self, lines: int = 20) -> list[str]:
        if self.settings.get("log_file"):
            return super().log_tail(lines)
        if self.since is None:
            return log_lines(self._journal("-n", str(lines)), lines)
        # More than is shown, since some of it may be left out.
        return log_lines(since_its_start(self._journal(f"--since=@{self.since:.6f}", "-n", "500")), lines)

    def _journal(self, *which: str) -> str:
        return self._run("journalctl", "-u", self.unit, *which, "-o", "cat", "--no-pager")[1]
