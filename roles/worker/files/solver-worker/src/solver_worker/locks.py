# SPDX-License-Identifier: GPL-3.0-or-later
"""One process per state directory and per socket, by flock: the lock vanishes with its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .errors import LockHeldError


def release(held: list[int]) -> None:
    while held:
        os.close(held.pop())


def take(path: Path, what: str) -> int:
    """Returns the open descriptor that holds the lock."""
    # A link in its place is somebody's trap: what it leads to is not ours.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise LockHeldError(f"taking {path}: another process has the {what}") from exc
    return fd
