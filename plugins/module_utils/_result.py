# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""The common shape of options and results of the modules that talk to a worker."""

from __future__ import annotations

import math
import time
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import WorkerError

HOST_BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"

# What an option may hold in seconds, and a record: 11 days. Also what no number is bounded by is below it.
LONGEST_S = 1e6
# How long a drain, and what renews it, lasts without a renewal.
LEASE_S = 900.0


def control_argument_spec() -> dict[str, Any]:
    """Options of every module that talks to one worker; documented in the fragment solver.fleet.control."""
    return {
        "control_socket": {"type": "path", "required": True},
        "control_timeout": {"type": "float", "default": 5.0},
    }


def positive(params: dict[str, Any], *names: str) -> None:
    """Refuse durations that cannot be waited for, naming the option; no number at all is one of them."""
    for name in names:
        value = params.get(name)
        if value is not None and not 0 < value < LONGEST_S:
            shown = f"{value:g}" if isinstance(value, float) else str(value)[:20]
            raise WorkerError("bad_option", f"{name} must be a positive number of seconds, got {shown}")


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
    if not isinstance(since, dict) or since.get("host_boot_id") != now["host_boot_id"]:
        return 0.0
    try:
        passed = float(now["uptime_s"]) - float(since["uptime_s"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0
    return passed if 0 < passed < math.inf else 0.0
