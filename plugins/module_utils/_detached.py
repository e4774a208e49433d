# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""Work that comes to its end whoever dies: it is done by a process that belongs to nobody's session or tree."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import Callable, Iterator, NoReturn, Sequence

from ansible_collections.solver.fleet.plugins.module_utils._errors import FleetError, StepError, crash_of

_ANSWER_BYTES = 1 << 20
_STD = (0, 1, 2)


def detached(
    work: Callable[[], None], mend: Callable[[], None], longest: float, keep: Sequence[int] = ()
) -> None:
    """Do WORK in a process of its own session and without a parent, and raise what it raises.

    It is there before WORK begins, goes on where this process is killed, and ends by itself, after LONGEST seconds at
    the latest. Where WORK fails, that is said at once, and MEND is done after it. The descriptors KEEP stay open in it,
    so locks on them are held until it ends.
    """
    read, write = os.pipe()
    try:
        middle = os.fork()
        if middle == 0:
            _leave_the_tree(work, mend, longest, write, keep)
        os.close(write)
        os.waitpid(middle, 0)
        answer = b"".join(_blocks(read))
    finally:
        os.close(read)
    _raise_from(answer)


def _blocks(read: int) -> Iterator[bytes]:
    block = os.read(read, _ANSWER_BYTES)
    while block:
        yield block
        block = os.read(read, _ANSWER_BYTES)


def _raise_from(answer: bytes) -> None:
    try:
        said = json.loads(answer.decode("utf-8"))
    except ValueError:
        raise StepError(
            "restart_lost",
            "restarting: the process that does it was ended before it could say how it went; look at the service",
        ) from None
    if said:
        raise StepError(said["code"], said["message"], said["details"], said["cause"])


def _leave_the_tree(
    work: Callable[[], None], mend: Callable[[], None], longest: float, write: int, keep: Sequence[int]
) -> NoReturn:
    """In the first child: a session of its own, and a child that is left alone in it. Neither ever returns."""
    try:
        os.setsid()
        middle = os.getpid()
        if os.fork() != 0:
            os._exit(0)
        _become_nobodys(middle, longest, {write, *keep})
        failure = _outcome(work)
        with contextlib.suppress(OSError):  # nobody may be there any more to hear it
            os.write(write, json.dumps(failure).encode("utf-8"))
        os.close(write)
        if failure:
            mend()
    finally:
        os._exit(0)


def _become_nobodys(middle: int, longest: float, keep: set[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, longest)
    nothing = os.open(os.devnull, os.O_RDWR)
    for std in _STD:
        os.dup2(nothing, std)
    _close_all_but({*_STD, *keep})
    os.chdir("/")
    # While the first child lives, whoever kills the tree still finds this one in it: nothing is touched before.
    while os.getppid() == middle:
        time.sleep(0.001)


def _close_all_but(keep: set[int]) -> None:
    """Most of all the pipes by which somebody waits for the end of the module."""
    try:
        open_ones = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        open_ones = list(range(1024))
    for number in set(open_ones) - keep:
        with contextlib.suppress(OSError):
            os.close(number)


def _outcome(work: Callable[[], None]) -> dict[str, object]:
    try:
        work()
    except FleetError as error:
        return _said(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits must hear it
        return _said(crash_of(error))
    return {}


def _said(error: FleetError) -> dict[str, object]:
    return {"code": error.code, "message": error.message, "details": error.details, "cause": error.cause}
