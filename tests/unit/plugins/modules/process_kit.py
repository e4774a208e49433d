# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends a process with all that it started, without a word to any of them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def await_that(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            found.setdefault(parent, []).append(int(path.parent.name))
    return found


def kill_tree(pid: int) -> None:
    """Kill a process, all its descendants and the groups of those; each is stopped before, so that none starts another.

    The group of whoever calls this is left alone.
    """
    seen: set[int] = set()
    while found := _tree(pid) - seen:
        for one in found:
            _signal(one, signal.SIGSTOP)
        seen |= found
    for one in seen:
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(one)
            if group != os.getpgrp():
                os.killpg(group, signal.SIGKILL)
        _signal(one, signal.SIGKILL)


def _tree(pid: int) -> set[int]:
    known, waiting, out = children(), [pid], set[int]()
    while waiting:
        one = waiting.pop()
        out.add(one)
        waiting += known.get(one, [])
    return out


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
