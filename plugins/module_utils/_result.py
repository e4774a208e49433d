# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""The common shape of options and results of the modules that talk to a worker."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._socket import Finding, WorkerError

HOST_BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"

# Findings name what is at the socket; for people each also says in words what to do (in the message itself).
FINDINGS = ("stopped", "dead", "denied", "hung", "foreign")


def control_argument_spec() -> dict[str, Any]:
    """Options of every module that talks to one worker; documented in the fragment solver.fleet.control."""
    return {
        "control_socket": {"type": "path", "required": True},
        "control_timeout": {"type": "float", "default": 5.0},
    }


def positive(params: dict[str, Any], *names: str) -> None:
    """Refuse durations that cannot be waited for, naming the option."""
    for name in names:
        value = params.get(name)
        if value is not None and not 0 < value < 1e6:
            raise WorkerError(
                f"{name} must be a positive number of seconds, got {value:g}", code="bad_option"
            )


def failure(code: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The machine-readable side of a failure; msg says the same to people."""
    return {"code": code, "message": message, "details": details or {}}


def failure_of(error: Any) -> dict[str, Any]:
    return failure(error.code, error.message, error.details)


def exit_failed(module: Any, doing: str, error: Any, result: dict[str, Any]) -> None:
    """End a module with what it knows: progress is returned on failure as on success."""
    result = dict(result, failure=failure_of(error))
    module.fail_json(msg=f"{doing}: {error.message}", **result)


def finding_of(error: Finding) -> str:
    return error.code if error.code in FINDINGS else "foreign"


def remaining_of(status: dict[str, Any] | None) -> dict[str, Any] | None:
    """The tasks that still depend on the running process, in numbers."""
    tasks = (status or {}).get("tasks")
    if not tasks:
        return None
    names = ("open", "accepted", "submitting", "polling", "unfetched", "oldest_age_s")
    return {name: tasks.get(name) for name in names}


def host_clock() -> dict[str, Any]:
    """A reading of this machine's clock that is never stepped and goes on during suspend.

    It is only good until the machine boots again, so it carries the machine's boot id.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    try:
        with open(HOST_BOOT_ID_FILE, encoding="ascii") as stream:
            boot = stream.read().strip()
    except OSError:
        boot = ""
    return {"host_boot_id": boot, "uptime_s": round(time.clock_gettime(clock), 3)}


def elapsed_since(since: dict[str, Any] | None, now: dict[str, Any]) -> float:
    """Seconds from an earlier reading of host_clock to a later one; 0 where they cannot be compared."""
    if not since or since.get("host_boot_id") != now["host_boot_id"]:
        return 0.0
    try:
        return max(0.0, float(now["uptime_s"]) - float(since["uptime_s"]))
    except (KeyError, TypeError, ValueError):
        return 0.0
