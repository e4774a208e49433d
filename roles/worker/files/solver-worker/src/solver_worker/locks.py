# SPDX-License-Identifier: GPL-3.0-or-later
"""One process per state directory and per socket, by flock: the lock vanishes with its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .errors import LockHeldError


def take(path: Path, what: str) -> int:
    """Returns the open descriptor that holds the lock; it is never closed before the process ends."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise LockHeldError(f"taking {path}: another process has the {what}") from exc
    return fd
