# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Who this controller is, and whether another one is proven dead."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

# The namespace of process ids that a machine starts with; a container has another (PROC_PID_INIT_INO in Linux).
INITIAL_PID_NS = 4026531836

# Whether a process with this id and start time may still be running.
Alive = Callable[[int, int], bool]


def here(pid: int | None = None) -> dict[str, Any]:
    """Describe this controller: the machine, its boot, and the main process of ansible-playbook.

    An action runs in a child of that process. Where there is no /proc the fields are null, and nothing is provable.
    """
    main = pid if pid is not None else os.getppid()
    return {
        "host": socket.gethostname(),
        "machine_id": _text("/etc/machine-id"),
        "boot_id": _text("/proc/sys/kernel/random/boot_id"),
        "pid": main,
        "pid_started": started(main),
        "pid_ns": _inode("/proc/self/ns/pid"),
    }


def started(pid: int) -> int | None:
    """Return when a process began, in ticks since the boot; nothing if there is none or it cannot be seen."""
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def may_live(pid: int, began: int) -> bool:
    """Say whether the process PID that BEGAN then may be running; what cannot be seen may.

    /proc can be closed to other users (hidepid), so a missing entry is no proof, but the kernel's word is.
    """
    fields = _fields(pid)
    if fields:
        # A zombie runs no more, however long its parent forgets it.
        return int(fields[19]) == began and fields[0] not in ("Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _fields(pid: int) -> list[str]:
    """Return the fields of a process from its state on, or nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # The name in the second field may hold spaces and brackets.
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > 19 and fields[19].isdigit() else []


def provably_dead(controller: Mapping[str, Any], own: Mapping[str, Any], alive: Alive = may_live) -> bool:
    """Say whether the recorded CONTROLLER certainly no longer runs.

    Containers on one machine share its boot id, so another namespace of process ids proves nothing.
    """
    pid, began = controller.get("pid"), controller.get("pid_started")
    if not _is_id(pid) or not _is_id(began):
        return False
    if controller.get("pid_ns") is None or controller["pid_ns"] != own.get("pid_ns"):
        return False
    if controller.get("boot_id") and controller.get("boot_id") == own.get("boot_id"):
        return not alive(pid, began)
    # Machines that were cloned have one machine id, but not one name.
    same_machine = bool(own.get("machine_id")) and all(
        controller.get(name) == own.get(name) for name in ("machine_id", "host"))
    booted_since = bool(controller.get("boot_id")) and bool(own.get("boot_id"))
    return same_machine and booted_since and bool(controller["pid_ns"] == INITIAL_PID_NS)


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _inode(path: str) -> int | None:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return None
