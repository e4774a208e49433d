# SPDX-License-Identifier: GPL-3.0-or-later
"""Log lines are JSON objects on stderr; they never carry payloads, answers, secrets, or what a stranger sent.

What a library says of a request may quote it, token and all: of a foreign record only its place and the kind of its
exception are written. A warning that comes again and again is counted, not written.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .clock import rfc3339

LOG = logging.getLogger("solver_worker")
# So many lines of one event in so many seconds; the rest is counted.
BURST = 20
WINDOW_S = 10.0


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        own = record.name == LOG.name
        line: dict[str, Any] = {
            "at": rfc3339(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage() if own else f"{record.name} logged",
        }
        if not own:
            line["place"] = f"{record.module}:{record.lineno}"
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            line["cause"] = cause_of(record.exc_info[1])
        return json.dumps(line, default=str)


def cause_of(exc: BaseException) -> str:
    """The kind of an exception and where it was raised; its text may quote a request."""
    frames = traceback.extract_tb(exc.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(exc).__name__ + place


class Repeats(logging.Filter):
    """Lets the first lines of an event pass, and says with the next window's first how many it held back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        own = record.name == LOG.name
        kind = (record.name, record.lineno, record.getMessage() if own else record.pathname)
        now = self._clock()
        began, count = self._windows.get(kind, (now, 0))
        if now - began >= WINDOW_S:
            if count > BURST:
                record.fields = {**getattr(record, "fields", {}), "left_out": count - BURST}
            began, count = now, 0
        self._windows[kind] = (began, count + 1)
        return count < BURST


def configure(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOG.setLevel(level.upper())


def loop_failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """asyncio's own handler prints the objects of its context, and these quote what was received."""
    exc = context.get("exception")
    error("the event loop met an error", cause=cause_of(exc) if exc is not None else "unknown")


def log(level: int, event: str, **fields: Any) -> None:
    LOG.log(level, event, extra={"fields": fields})


def info(event: str, **fields: Any) -> None:
    log(logging.INFO, event, **fields)


def warning(event: str, **fields: Any) -> None:
    log(logging.WARNING, event, **fields)


def error(event: str, **fields: Any) -> None:
    log(logging.ERROR, event, **fields)
