# SPDX-License-Identifier: GPL-3.0-or-later
"""Time that is not stepped and goes on while the machine sleeps."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
UNKNOWN_BOOT = "unknown"


class Clock:
    """``boot`` measures leases and waits; ``now`` is a date that nobody can step while we run."""

    def __init__(self) -> None:
        self.offset = time.time() - self.boot()

    def boot(self) -> float:
        return time.clock_gettime(_BOOTTIME)

    def now(self) -> float:
        return self.offset + self.boot()


def kernel_boot_id() -> str:
    """Names this boot of the machine: readings of the boot clock compare only within one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return UNKNOWN_BOOT


def rfc3339(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
