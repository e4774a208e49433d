# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What of a host decides whether a worker can live on it. Nothing is changed."""

from __future__ import annotations

import os
import platform
import socket
import time
from typing import Any, Dict, Iterable

from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError
from ansible_collections.solver.fleet.plugins.module_utils._files import existing_parent, free_mb
from ansible_collections.solver.fleet.plugins.module_utils._wheels import find_python

Json = Dict[str, Any]
PORT_S = 1.0


def host_look(
    base_dir: str, worker_python: str | None, backend: str, secrets: Iterable[str], data_address: str,
) -> Json:
    """Look at the machine, as the user that the tasks run as."""
    found: Json = {"python": platform.python_version(), "uid": os.geteuid(), "clock": time.time(),
                   "disk": disk(base_dir), "secrets": {path: secret(path) for path in secrets},
                   "port_open": port_open(data_address), "manager": backend != "systemd" or _systemd()}
    try:
        found["worker_python"] = find_python(worker_python, "solver_worker_python")
    except StepError as error:
        found["worker_python_problem"] = error.message
    return found


def _systemd() -> bool:
    """As sd_booted does it."""
    return os.path.isdir("/run/systemd/system")


def disk(path: str) -> Json:
    """How much room there is where PATH is or would be, and whether it may be written there."""
    place = existing_parent(path)
    return {"place": place, "free_mb": free_mb(place), "writable": os.access(place, os.W_OK)}


def secret(path: str) -> Json:
    """Whether a secret is there, and who may read it."""
    try:
        found = os.stat(path)
        filled = found.st_size > 0
    except OSError as error:
        return {"problem": error.strerror or str(error)}
    return {"mode": found.st_mode & 0o7777, "uid": found.st_uid, "filled": filled}


def port_open(address: str) -> bool:
    """Whether somebody listens there."""
    host, _colon, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PORT_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False
